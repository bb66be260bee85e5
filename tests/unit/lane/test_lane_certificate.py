"""When a certificate is valid, read without the package that could."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.lane.certificate import validity
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("days", [0.5, 90, 366, 365 * 20, 365 * 60])
def test_times_are_those_of_the_certificate(authority, days):
    """From 2050 on they are written in another form (RFC 5280, section 4.1.2.5)."""
    path, _ = authority.issue(f"days-{days}", days=days)

    found = validity(path.read_text())

    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    assert found.begins_at == certificate.not_valid_before_utc.timestamp()
    assert found.ends_at == certificate.not_valid_after_utc.timestamp()
    assert found.ends_at > datetime.datetime.now(datetime.UTC).timestamp()


def test_rsa_certificate_and_the_first_of_a_chain_are_read(authority):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path, _ = authority.issue("rsa", days=7, key=key)
    chain = f"subject=CN = localhost\n{path.read_text()}{authority.path.read_text()}"

    assert validity(chain) == validity(path.read_text()) != validity(authority.path.read_text())


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----"]
)
def test_what_is_no_certificate_is_said_so(text):
    with pytest.raises(ValueError, match="no certificate"):
        validity(text)


@pytest.fixture(scope="module")
def certificate(authority):
    return ssl.PEM_cert_to_DER_cert(authority.issue("damaged")[0].read_text())


@settings(deadline=None)
@given(cut=st.integers(0, 500), place=st.integers(0, 200), byte=st.integers(0, 255))
def test_damaged_certificate_is_a_value_error_or_has_other_times(certificate, cut, place, byte):
    der = bytearray(certificate)
    der[place] = byte
    for damaged in (der, der[:cut]):
        try:
            validity(ssl.DER_cert_to_PEM_cert(bytes(damaged)))
        except ValueError:
            continue
