"""The certificate that the bench makes for itself."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from bench.certificate import Certificate, make_certificate


def handshake(server: Certificate, client: ssl.SSLContext) -> str | None:
    """Shake hands over a real pair of sockets; the version that was agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.path, server.key_path)
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            context.wrap_socket(ours, server_side=True).close()
        except (ssl.SSLError, OSError):
            ours.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with theirs, client.wrap_socket(theirs, server_hostname="127.0.0.1") as connection:
            return connection.version()
    finally:
        thread.join()


def test_callers_verify_it_and_speak_tls_1_3(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)

    assert handshake(made, made.client_context()) == "TLSv1.3"
    assert made.key_path.stat().st_mode & 0o077 == 0


def test_callers_refuse_another_one(tmp_path: Path) -> None:
    """What is measured includes verifying, as in earnest."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    made, other = make_certificate(tmp_path / "one"), make_certificate(tmp_path / "other")

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other, made.client_context())
