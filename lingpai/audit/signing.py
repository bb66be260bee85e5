"""Ed25519 signatures (RFC 8032) of checkpoints and of the ends of exports.

This is the one file that loads a library for cryptography, 7 MB of memory. The server never imports it: it runs it as a
program that signs one statement and ends (`signer.py`), which also keeps the private key out of its own memory.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lingpai.audit.canonical import canonical
from lingpai.audit.keys import KEY_BYTES, AuditKeyError, KeyFile, read_keys

_CONTEXT: Final = b"lingpai audit statement, version 1\n"
"""In front of what is signed, so that no signature of this key can mean anything else (RFC 8032, section 8.3)."""


class PublicKeys:
    """The public keys that statements may be signed with."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        """`keys` are raw public keys of 32 bytes. Raises ValueError for others."""
        self._by_id = {key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in keys}

    def vouch_for(self, statement: Mapping[str, Any]) -> bool:
        """Whether `statement` was signed as it is with one of these keys."""
        unsigned = dict(statement)
        signature, key = unsigned.pop("signature", None), self._by_id.get(str(statement.get("key")))
        if key is None or not isinstance(signature, str):
            return False
        try:
            key.verify(_unbase64(signature), _signed_bytes(unsigned))
        except (InvalidSignature, ValueError, TypeError, RecursionError):
            return False
        return True


def public_keys(keys: KeyFile) -> dict[int, bytes]:
    """All public keys of a file, by version."""
    return {**keys.public, **{version: _public_half(seed) for version, seed in keys.seeds.items()}}


def key_id(public: bytes) -> str:
    """The name of a public key: its thumbprint (RFC 7638, RFC 8037 appendix A.3)."""
    parts = f'{{"crv":"Ed25519","kty":"OKP","x":"{public_text(public)}"}}'
    return _base64(hashlib.sha256(parts.encode()).digest())


def public_text(public: bytes) -> str:
    """A public key as a JSON Web Key has it (RFC 8037, section 2): base64url, 43 characters."""
    return _base64(public)


def public_from_text(text: str) -> bytes:
    """The public key that `public_text` wrote. Raises ValueError."""
    public = _unbase64(text)
    if len(public) != KEY_BYTES:
        raise ValueError(f"a public key has {KEY_BYTES} bytes")
    return public


def sign(keys: KeyFile, statement: Mapping[str, Any]) -> str:
    """`statement` as one canonical line, with the id of the newest key (`key`) and a signature by it."""
    unsigned = {**statement, "key": signing_key_id(keys)}
    signature = Ed25519PrivateKey.from_private_bytes(keys.newest).sign(_signed_bytes(unsigned))
    return canonical({**unsigned, "signature": _base64(signature)})


def rotated(keys: KeyFile, seed: bytes) -> KeyFile:
    """The file with which the new private key `seed` signs; of the keys until now it has the public halves only."""
    known = public_keys(keys)
    return KeyFile(seeds={max(known) + 1: seed}, public=known)


def signing_key_id(keys: KeyFile) -> str:
    """The id of the key that signs."""
    return key_id(_public_half(keys.newest))


def main() -> None:
    """Sign the statement on stdin with the newest key of the file that is named; the signed line goes to stdout."""
    try:
        keys = read_keys(Path(sys.argv[1]))
    except AuditKeyError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(sign(keys, json.load(sys.stdin.buffer)).encode())


def _public_half(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _signed_bytes(statement: Mapping[str, Any]) -> bytes:
    return _CONTEXT + canonical(statement).encode()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


if __name__ == "__main__":
    main()
