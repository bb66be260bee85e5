"""The server's side of TLS: what is refused at the start, and how certificates are renewed."""

import logging
import os
import ssl
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lingpai.lane import tls as tls_module
from lingpai.lane.certificate import validity
from lingpai.lane.tls import CIPHERS, ServerTls, TlsError, TlsFiles
from tests.certificates import Authority, private_pem


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


@pytest.fixture
def files(authority):
    return TlsFiles(*authority.issue())


def look_until_settled(tls, now=None):
    for _ in range(2):
        tls.look(time.time() if now is None else now)


# -- the profile


def test_profile_is_mozillas_intermediate(files):
    context = ServerTls(files).context

    named = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert named == set(CIPHERS.split(":")) - {"@SECLEVEL=2"}
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(public_exponent=65537, key_size=2048), ec.generate_private_key(ec.SECP384R1())],
)
def test_keys_of_the_profile_can_be_used(authority, key):
    ServerTls(TlsFiles(*authority.issue(key=key)))


# -- what is refused


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_key_that_others_can_read_is_refused(files, mode):
    files.key.chmod(mode)

    with pytest.raises(TlsError, match=f"can be read by others.*chmod 600 {files.key}"):
        ServerTls(files)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_key_for_its_owner_alone_is_taken(files, mode):
    files.key.chmod(mode)

    ServerTls(files)


def test_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files):
    files.key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"password-canary"))

    with pytest.raises(TlsError, match=r"protected by a password.*openssl pkey -in"):
        ServerTls(files)


def test_key_of_another_certificate_is_refused(files, authority):
    _, other = authority.issue("other")

    with pytest.raises(TlsError, match="is not the one of the certificate"):
        ServerTls(TlsFiles(files.certificate, other))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("certificate", None, "certificate .* cannot be read: No such file"),
        ("key", None, "key .* cannot be read: No such file"),
        ("certificate", b"nonsense", "cannot be used: .*PEM"),
        ("key", b"nonsense", "cannot be used: .*PEM"),
        ("certificate", b"", "cannot be used: .*PEM"),
        ("client_ca", None, "authorities of client certificates .* cannot be used: No such file"),
        ("client_ca", b"nonsense", "authorities of client certificates .* cannot be used"),
    ],
)
def test_file_that_is_missing_or_damaged_is_named(authority, name, content, problem):
    files = TlsFiles(*authority.issue(), authority.path, "required")
    path = getattr(files, name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    with pytest.raises(TlsError, match=problem):
        ServerTls(files)


def test_weak_key_is_refused(authority):
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)

    with pytest.raises(TlsError, match="TOO_SMALL"):
        ServerTls(TlsFiles(*authority.issue(key=key)))


# -- renewal


def test_renewed_files_are_taken_over_once_they_are_settled(files, authority, caplog):
    tls = ServerTls(files)
    before = tls.context

    tls.look(time.time())
    authority.issue(days=60)
    tls.look(time.time())
    is_early = tls.context is not before
    with caplog.at_level(logging.INFO):
        tls.look(time.time())

    assert not is_early
    assert tls.context is not before
    assert tls.validity == validity(files.certificate.read_text())
    assert "a new TLS certificate is in use, valid until" in caplog.text


def test_files_behind_a_link_are_seen_to_change(authority, tmp_path):
    """As certbot has them: links that are led to other files."""
    links = [tmp_path / "fullchain.pem", tmp_path / "privkey.pem"]
    for link, path in zip(links, authority.issue("first"), strict=True):
        link.symlink_to(path)
    tls = ServerTls(TlsFiles(*links))
    before = tls.context
    for link, path in zip(links, authority.issue("second"), strict=True):
        link.unlink()
        link.symlink_to(path)

    look_until_settled(tls)

    assert tls.context is not before


def test_unchanged_files_are_left_alone(files):
    tls = ServerTls(files)
    before = tls.context

    look_until_settled(tls)

    assert tls.context is before


@pytest.mark.parametrize("damage", ["wrong key", "nonsense", "gone", "readable"])
def test_what_cannot_be_used_keeps_the_old_certificate_and_says_so_once(files, authority, caplog, damage):
    tls = ServerTls(files)
    before, ends_at = tls.context, tls.validity.ends_at
    if damage == "wrong key":
        files.key.write_bytes(authority.issue("other")[1].read_bytes())
    elif damage == "nonsense":
        files.certificate.write_bytes(b"nonsense")
    elif damage == "gone":
        files.key.unlink()
    else:
        files.key.chmod(0o644)

    with caplog.at_level(logging.INFO):
        for _ in range(3):
            look_until_settled(tls)

    assert (tls.context, tls.validity.ends_at) == (before, ends_at)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the old one stays" in caplog.text
    assert "PRIVATE KEY" not in caplog.text


def test_a_pair_that_fits_again_is_taken_over(files, authority):
    tls = ServerTls(files)
    before = tls.context
    files.key.unlink()
    look_until_settled(tls)
    authority.issue()

    look_until_settled(tls)

    assert tls.context is not before


def test_others_can_be_read_at_once(files, authority):
    """SIGHUP with other paths in the settings."""
    tls = ServerTls(files)
    other = TlsFiles(*authority.issue("other", days=7))

    assert tls.reload(other)
    assert tls.files is other
    assert not tls.reload(TlsFiles(files.certificate, other.key))
    assert tls.files is other


def test_ticket_keys_do_not_live_for_ever(files):
    """Each context has random keys of its own for session tickets."""
    tls = ServerTls(files)
    before = tls.context

    look_until_settled(tls, time.time() + tls_module.TICKET_KEYS_S + 1)

    assert tls.context is not before


# -- the end of a certificate


@pytest.mark.parametrize(
    ("days", "began_days_ago", "said"),
    [(90, 1, ""), (13, 77, "WARNING"), (4, 2, ""), (1.9, 4.1, "WARNING"), (-1, 89, "ERROR")],
)
def test_certificate_is_warned_of_before_its_end(authority, caplog, days, began_days_ago, said):
    """Two weeks before, or when two thirds of a short life are over."""
    tls = ServerTls(TlsFiles(*authority.issue(days=days, began_days_ago=began_days_ago)))

    with caplog.at_level(logging.INFO):
        look_until_settled(tls)

    assert [record.levelname for record in caplog.records] == ([said] if said else [])


def test_certificate_is_warned_of_once_a_day(authority, caplog):
    tls = ServerTls(TlsFiles(*authority.issue(days=5, began_days_ago=60)))
    now = time.time()

    with caplog.at_level(logging.WARNING):
        for hours in (0, 1, 23, 25, 26, 50):
            tls.look(now + hours * 3600)

    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_key_of_root_may_be_for_a_group(files, monkeypatch):
    """As Debian's ssl-cert has it; PostgreSQL has the same rule."""
    if os.geteuid() != 0:
        pytest.skip("needs a file of root's")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files.key.chmod(0o640)
    ServerTls(files)
    files.key.chmod(0o644)

    with pytest.raises(TlsError, match="can be read by others"):
        ServerTls(files)
