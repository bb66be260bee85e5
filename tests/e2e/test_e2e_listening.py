"""Where the server may listen, and with what: nobody shall be able to read keys and prompts on their way."""

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import Authority, private_pem
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import StartFailed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


def why_not(make_server: MakeServer, config: str, *arguments: str) -> str:
    """What the server says that does not start."""
    server = make_server(config=config, arguments=arguments)
    with pytest.raises(StartFailed):
        server.start()
    assert server.process is not None
    assert server.process.wait(10) == 1
    assert "Traceback" not in server.stderr
    return re.sub(r"\s+", " ", server.stderr)


# -- clear text


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("proxies", [[], ["127.0.0.1", "::1/128"]])
def test_rfc6749_s3_2_clear_text_on_a_public_address_is_refused_with_three_ways_out(
    make_server, host, proxies
):
    said = why_not(make_server, f"[server]\ntrusted_proxies = {proxies}\n", "--host", host)

    assert all(way in said for way in ("--tls-cert", "server.trusted_proxies", "--insecure"))
    assert ("listen on 127.0.0.1" in said) == bool(proxies)


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        ("", ("--insecure",)),
        ("[server]\ninsecure = true\n", ()),
        ('[server]\ntrusted_proxies = ["10.0.0.2"]\n', ()),
    ],
)
def test_clear_text_on_a_public_address_can_be_wanted(make_server, config, arguments):
    server = make_server(config=config, arguments=("--host", "0.0.0.0", *arguments)).start()

    assert server.base.startswith("http://0.0.0.0:")
    assert ("in clear text: keys and prompts can be read" in server.stderr) == ("proxies" not in config)
    assert server.stop() == 0


def test_loopback_by_name_needs_no_tls(make_server):
    assert make_server(config="", arguments=("--host", "localhost")).start().stop() == 0


def test_public_address_with_tls_is_fine(make_server, authority):
    certificate, key = authority.issue()
    arguments = ("--host", "0.0.0.0", "--tls-cert", str(certificate), "--tls-key", str(key))

    server = make_server(config="", arguments=arguments).start()

    assert server.base.startswith("https://0.0.0.0:")
    assert server.stop() == 0


@pytest.mark.parametrize("proxies", ['["everybody"]', '["0.0.0.0/0"]', '["10.0.0.1/8"]'])
def test_proxies_that_are_none_are_refused(make_server, proxies):
    assert "`server.trusted_proxies`" in why_not(make_server, f"[server]\ntrusted_proxies = {proxies}\n")


# -- certificates


def test_key_that_others_can_read_is_refused_at_start(make_server, authority):
    certificate, key = authority.issue()
    key.chmod(0o644)

    said = why_not(make_server, "", "--tls-cert", str(certificate), "--tls-key", str(key))

    assert f"chmod 600 {key}" in said


def test_key_with_a_password_is_refused_at_start(make_server, authority):
    certificate, key = authority.issue()
    key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"password"))

    said = why_not(make_server, "", "--tls-cert", str(certificate), "--tls-key", str(key))

    assert "protected by a password" in said
    assert "openssl pkey" in said


def test_key_of_another_certificate_is_refused_at_start(make_server, authority):
    certificate, _ = authority.issue()
    _, key = authority.issue("other")

    assert "is not the one of the certificate" in why_not(
        make_server, "", "--tls-cert", str(certificate), "--tls-key", str(key)
    )


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('tls_cert = "cert.pem"', "`server.tls_key` is missing"),
        ('tls_key = "key.pem"', "`server.tls_cert` is missing"),
        ('tls_cert = "cert.pem"\ntls_key = "key.pem"', "cert.pem cannot be read"),
        ('tls_client_ca = "ca.pem"', "are for TLS"),
        ('tls_cert = "c"\ntls_key = "k"\ntls_client_ca = "ca.pem"', "need both"),
        ('tls_cert = "c"\ntls_key = "k"\ntls_client_certificates = "required"', "need both"),
    ],
)
def test_half_of_what_tls_needs_is_refused(make_server, setting, problem):
    assert problem in why_not(make_server, f"[server]\n{setting}\n")
