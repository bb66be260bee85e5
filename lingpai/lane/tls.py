"""The server's side of TLS: which protocols and ciphers, the certificate, and its renewal while the server runs.

The profile is Mozilla's *intermediate* of its server-side TLS guidelines 5.7, without the finite-field ciphers that 5.8
has removed. docs/decisions has what is different, and why.
"""

import logging
import os
import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lingpai.lane.certificate import Validity, validity

log = logging.getLogger("lingpai.lane")

ClientCertificates = Literal["off", "optional", "required"]

# Level 2 also refuses keys of less than 112 bits of security: RSA under 2048 bits, curves under 224.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:@SECLEVEL=2"
)
"""Of TLS 1.2. Those of TLS 1.3 are all fit."""
TICKET_KEYS_S: Final = 12 * 3600.0
"""How long sessions can be resumed with the same keys. Who steals keys later can read what was resumed with them."""
WARN_BEFORE_S: Final = 14 * 86400.0
"""How long before its end a certificate is warned of; of a short-lived one, the last third of its life."""
WARN_EVERY_S: Final = 86400.0


class TlsError(Exception):
    """The certificate, its key or the client CA cannot be used. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate is (with its chain), its private key, and the authorities of clients' certificates.

    `client_ca` is there unless `client_certificates` is off.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_certificates: ClientCertificates = "off"

    def signature(self) -> tuple[tuple[int, ...], ...]:
        """Another one when a file was written or replaced; what a symbolic link leads to counts."""
        paths = (self.certificate, self.key, self.client_ca)
        return tuple(_signature(path) for path in paths if path is not None)


class ServerTls:
    """The context for new handshakes, replaced when the files change. Connections keep the one they began with."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsError."""
        self.files = files
        self._seen = self._tried = files.signature()
        self._warned_at = 0.0
        self._use(files)

    def _use(self, files: TlsFiles) -> None:
        context, text = _load(files)
        found = _validity(files.certificate, text)
        self.context, self.validity, self._text = context, found, text
        self._made_at = time.time()

    def look(self, now: float) -> None:
        """Take renewed files over, make new ticket keys in time, warn of the end. Blocks; call it every few seconds.

        Files that changed since the last look are left alone until the next: a certificate and its key are not
        replaced in one stroke.
        """
        signature = self.files.signature()
        is_settled, self._seen = signature == self._seen, signature
        is_old = now - self._made_at > TICKET_KEYS_S
        if is_settled and (is_old or signature != self._tried):
            self.reload()
        self._warn(now)

    def reload(self, files: TlsFiles | None = None) -> bool:
        """Read the files again, or others. What cannot be used changes nothing, and is said in the log; blocks."""
        files = files or self.files
        self._tried = files.signature()
        text = self._text
        try:
            self._use(files)
        except TlsError as error:
            self._made_at = time.time()  # not again at every look
            log.error("the TLS certificate was not reloaded, the old one stays: %s", error)  # noqa: TRY400  the message says it all
            return False
        self.files = files
        if self._text != text:
            self._warned_at = 0.0
            log.info("a new TLS certificate is in use, valid until %s", _day(self.validity.ends_at))
        return True

    def _warn(self, now: float) -> None:
        left = self.validity.ends_at - now
        life = self.validity.ends_at - self.validity.begins_at
        if left > min(WARN_BEFORE_S, life / 3) or now - self._warned_at < WARN_EVERY_S:
            return
        self._warned_at = now
        if left > 0:
            log.warning(
                "the TLS certificate %s ends on %s: renew it", self.files.certificate, _day(now + left)
            )
        else:
            log.error(
                "the TLS certificate %s has ended on %s: clients refuse it",
                self.files.certificate,
                _day(now + left),
            )


def _load(files: TlsFiles) -> tuple[ssl.SSLContext, str]:
    """A context, and what is in the certificate's file. Raises TlsError."""
    try:
        text = files.certificate.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise TlsError(
            f"The certificate {files.certificate} cannot be read: {error.strerror or error}."
        ) from error
    _check_key_is_secret(files.key)
    context = _profile()
    _load_pair(context, files)
    if files.client_ca is not None and files.client_certificates != "off":
        _ask_for_client_certificates(context, files.client_ca)
    return context, text


def _validity(certificate: Path, text: str) -> Validity:
    try:
        return validity(text)
    except ValueError as error:
        raise TlsError(f"The certificate {certificate} cannot be read: {error}.") from error


def _profile() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Every cipher is fit, so the client may choose: without AES in its processor, ChaCha20 is faster for it.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if ssl.OPENSSL_VERSION_INFO < (3, 5):
        # The profile has three curves, and Python can name one, which must be the one that every client has (RFC 8446,
        # section 9.1). From 3.5 on, OpenSSL's own list begins with a hybrid that quantum computers do not break.
        context.set_ecdh_curve("prime256v1")
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    has_password = False

    def refuse_password() -> str:
        # Without this, OpenSSL would ask for it on the terminal and wait.
        nonlocal has_password
        has_password = True
        return ""

    try:
        context.load_cert_chain(files.certificate, files.key, password=refuse_password)
    except ssl.SSLError as error:
        if has_password:
            problem = (
                f"The key {files.key} is protected by a password. Nobody is there to type it when the server starts: "
                f"write a copy without one, `openssl pkey -in {files.key} -out KEY`, and `chmod 600` it."
            )
        elif error.reason == "KEY_VALUES_MISMATCH":
            problem = f"The key {files.key} is not the one of the certificate {files.certificate}."
        else:
            problem = (
                f"The certificate {files.certificate} and the key {files.key} cannot be used: "
                f"{error.reason or error}. Both must be PEM files, the certificate with its chain."
            )
        raise TlsError(problem) from error
    except OSError as error:
        raise TlsError(f"The key {files.key} cannot be read: {error.strerror or error}.") from error


def _ask_for_client_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    # Also where one is required: a client without any then gets an answer that says so, not a broken connection.
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(authorities)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or error
        raise TlsError(
            f"The authorities of client certificates {authorities} cannot be used: {reason}. It must be a PEM file."
        ) from error


def _check_key_is_secret(key: Path) -> None:
    try:
        status = key.stat()
    except OSError as error:
        raise TlsError(f"The key {key} cannot be read: {error.strerror or error}.") from error
    # What belongs to root may be readable for a group, as Debian's ssl-cert has it: PostgreSQL's rule, too.
    forbidden = 0o027 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if stat.S_IMODE(status.st_mode) & forbidden:
        raise TlsError(f"The key {key} can be read by others, so it is no secret. Run: chmod 600 {key}")


def _signature(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
