"""Sealing: values that the database keeps encrypted, because the server has to read them again (a provider's key).

A sealed value is ``format (1 byte) | version of the root key (4) | nonce (12) | AES-256-GCM ciphertext | tag (16)``. Its
key is derived from the root key for one purpose (HKDF-SHA-256, RFC 5869); the head, the purpose and the context, which is
the id of the row, are authenticated with it. So a value that was moved to another row, or sealed for another purpose, does
not open, and the database alone opens nothing.

Nonces are random: one derived key may seal 2³² values (NIST SP 800-38D, section 8.3), and a server seals thousands.
"""

import os
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from lingpai.storage.versioned_secrets import SecretKind, VersionedSecrets

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROOT_KEY: Final = SecretKind(
    name="root key",
    field="root_keys",
    variable="LINGPAI_ROOT_KEY",
    loss="no provider key and no signing key can be read",
)
FORMAT: Final = 1
HEAD: Final = struct.Struct(">BI")
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LEAST_BYTES: Final = HEAD.size + _NONCE_BYTES + _TAG_BYTES


class SealError(ValueError):
    """A sealed value does not open. The message says why, without anything secret."""


class UnknownRootKeyError(SealError):
    """The value was sealed under a version of the root key that this server does not have."""


class RootKeys(VersionedSecrets):
    """All versions of the root key, from which the keys that seal are derived."""

    kind: ClassVar = ROOT_KEY

    __slots__ = ()


class Sealer:
    """Seals and opens values. Any thread may use it."""

    def __init__(self, root_keys: RootKeys) -> None:
        self._root_keys = root_keys

    @property
    def newest_version(self) -> int:
        """The version of the root key under which values are sealed now."""
        return self._root_keys.newest_version

    def seal(self, purpose: str, context: str, plaintext: bytes) -> bytes:
        """`plaintext`, encrypted for one purpose (`provider-key`) and one context (the id of its row)."""
        version = self._root_keys.newest_version
        head = HEAD.pack(FORMAT, version)
        nonce = os.urandom(_NONCE_BYTES)
        cipher = _cipher(self._root_keys.value(version), purpose)
        return head + nonce + cipher.encrypt(nonce, plaintext, _associated_data(head, purpose, context))

    def open(self, purpose: str, context: str, sealed: bytes) -> bytes:
        """What was sealed for this purpose and context. Blocks when the root key is not known yet: it may be new.

        Raises UnknownRootKeyError, and SealError for a value that was changed, moved, or sealed for something else.
        """
        version = sealed_version(sealed)
        if not self._root_keys.learn(version):
            raise UnknownRootKeyError(
                f"The {purpose} of {context} was sealed under root key {version}, which this server does not have"
                f" (it has {', '.join(map(str, self._root_keys.versions()))}, from {self._root_keys.place})."
                " Restore it from a backup."
            )
        # Loaded with the first value that is opened, and most servers have none: 9 MB of memory.
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        head, nonce = sealed[: HEAD.size], sealed[HEAD.size : HEAD.size + _NONCE_BYTES]
        try:
            return _cipher(self._root_keys.value(version), purpose).decrypt(
                nonce, sealed[HEAD.size + _NONCE_BYTES :], _associated_data(head, purpose, context)
            )
        except InvalidTag:
            raise SealError(
                f"The {purpose} of {context} does not open: it was changed, belongs to something else, or was sealed"
                f" under another root key {version} than the one in {self._root_keys.place}."
            ) from None


def sealed_version(sealed: bytes) -> int:
    """The version of the root key that opens `sealed`. Raises SealError when it is no sealed value of a known format."""
    if len(sealed) < _LEAST_BYTES:
        raise SealError("That is no sealed value: it is too short.")
    format_, version = HEAD.unpack_from(sealed)
    if format_ != FORMAT:
        raise SealError(f"That is no sealed value of a format that this release knows ({format_}).")
    return int(version)


def _associated_data(head: bytes, purpose: str, context: str) -> bytes:
    """Each part with its length in front, so that no two lists of parts look the same."""
    return b"".join(_with_length([head, purpose.encode(), context.encode()]))


def _with_length(parts: Iterable[bytes]) -> Iterable[bytes]:
    for part in parts:
        yield struct.pack(">I", len(part))
        yield part


@lru_cache(maxsize=64)
def _cipher(root_key: bytes, purpose: str) -> "AESGCM":
    # Loaded with the first value that is sealed or opened, and most servers have none: 9 MB of memory.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    info = b"lingpai sealing " + purpose.encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(root_key))
