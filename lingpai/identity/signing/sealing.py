"""Secrets that must be read again, encrypted under keys that are derived from the server's pepper.

AES-256-GCM with a random nonce; a key per purpose (HKDF, RFC 5869); purpose and context in the additional data, so that
what was sealed for one row opens for no other.
"""

import os
from typing import Final

from lingpai.identity.peppers import Peppers

_NONCE_BYTES: Final = 12
_VERSION_BYTES: Final = 4


class PepperSealer:
    """Seals with the newest pepper and opens with whichever it was."""

    def __init__(self, peppers: Peppers) -> None:
        self._peppers = peppers

    def seal(self, purpose: str, context: str, plaintext: bytes) -> bytes:
        """Encrypt for a purpose and bind to a context: version of the pepper, nonce, ciphertext."""
        # 10 MB of memory and 50 ms, for servers that hold such a secret only.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        version, nonce = self._peppers.newest_version, os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._key(purpose, version)).encrypt(nonce, plaintext, _bound(purpose, context))
        return version.to_bytes(_VERSION_BYTES) + nonce + sealed

    def open(self, purpose: str, context: str, sealed: bytes) -> bytes:
        """What was sealed. Raises ValueError when it was changed, or sealed for something else, or its pepper is gone."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as above

        version = int.from_bytes(sealed[:_VERSION_BYTES])
        if version not in self._peppers:
            raise ValueError(f"it was sealed with pepper version {version}, which is missing")
        nonce, ciphertext = sealed[_VERSION_BYTES:][:_NONCE_BYTES], sealed[_VERSION_BYTES + _NONCE_BYTES :]
        try:
            return AESGCM(self._key(purpose, version)).decrypt(nonce, ciphertext, _bound(purpose, context))
        except (InvalidTag, ValueError) as exc:
            raise ValueError("it was changed, or sealed for something else") from exc

    def _key(self, purpose: str, version: int) -> bytes:
        # One block of HKDF-Expand with the pepper as the pseudorandom key: it is uniform already.
        return self._peppers.hmac(f"lingpai seal {purpose}".encode() + b"\x01", version)


def _bound(purpose: str, context: str) -> bytes:
    return f"{purpose}\0{context}".encode()
