"""Public keys of Ed25519 (RFC 8032) as people send them: PEM, a JWK, or the 32 bytes in base64.

Read without a cryptographic library: each form is a fixed frame around 32 bytes.
"""

import base64
import binascii
import json
import re
from typing import Final

PUBLIC_KEY_BYTES: Final = 32
MOST_CHARACTERS: Final = 2000
_PEM: Final = re.compile(r"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")
_PRIVATE: Final = re.compile(r'PRIVATE KEY-----|"d"\s*:')
_DER_FRAME: Final = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo with the one object identifier of Ed25519 (RFC 8410, section 4)."""

_FIELD: Final = 2**255 - 19
# Points of order 1, 2, 4 and 8: with one of them as a public key, a signature fits every message. Compared without the
# sign of x, so that each y stands for both; those at or above the field's prime are other spellings of 0 and 1.
_Y_OF_ORDER_8: Final = 55188659117513257062467267217118295137698188065244968500265048394206261417927
_LOW_ORDER_Y: Final = frozenset({0, 1, _FIELD - 1, _FIELD, _FIELD + 1, _Y_OF_ORDER_8, _FIELD - _Y_OF_ORDER_8})
_PUBLISHED: Final = frozenset(
    {bytes.fromhex("26b40b8f93fff3d897112f7ebc582b232dbd72517d082fe83cfb30ddce43d1bb")}
)
"""The example of RFC 9421, appendix B.1.4, whose private key stands beside it."""


class PublicKeyError(ValueError):
    """The text is no public key that can be used; the message says why. It never repeats the text."""


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of an Ed25519 public key. Raises PublicKeyError."""
    if len(text) > MOST_CHARACTERS:
        raise PublicKeyError(f"it has {len(text)} characters; {MOST_CHARACTERS} is the most")
    if _PRIVATE.search(text):
        raise PublicKeyError(
            "it is a private key, which nobody but its owner should ever see: make a new pair, and send the public key"
        )
    stripped = text.strip()
    if stripped.startswith("{"):
        key = _from_jwk(stripped)
    elif stripped.startswith("-----"):
        key = _from_pem(stripped)
    else:
        key = _decoded(stripped)
    _check(key)
    return key


def public_key_text(key: bytes) -> str:
    """`key` in base64, as lists show it."""
    return base64.b64encode(key).decode()


def _from_pem(text: str) -> bytes:
    match = _PEM.fullmatch(text)
    if match is None:
        raise PublicKeyError("it is no PEM of one public key (`-----BEGIN PUBLIC KEY-----`)")
    der = _decoded("".join(match[1].split()))
    if not der.startswith(_DER_FRAME) or len(der) != len(_DER_FRAME) + PUBLIC_KEY_BYTES:
        raise PublicKeyError(
            "it is a key of another kind than Ed25519: `openssl genpkey -algorithm ed25519` makes one"
        )
    return der[len(_DER_FRAME) :]


def _from_jwk(text: str) -> bytes:
    """RFC 8037, section 2."""
    try:
        jwk = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise PublicKeyError("it begins like a JWK and is no JSON") from exc
    if not isinstance(jwk, dict) or jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise PublicKeyError('the JWK must have "kty": "OKP" and "crv": "Ed25519"')
    if not isinstance(jwk.get("x"), str):
        raise PublicKeyError('the JWK has no "x"')
    return _decoded(jwk["x"])


def _decoded(text: str) -> bytes:
    """base64 in either alphabet, with or without padding."""
    standard = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise PublicKeyError("it is neither PEM nor JWK nor base64") from exc


def _check(key: bytes) -> None:
    if len(key) != PUBLIC_KEY_BYTES:
        raise PublicKeyError(f"it has {len(key)} bytes; a public key of Ed25519 has {PUBLIC_KEY_BYTES}")
    if int.from_bytes(key, "little") % 2**255 in _LOW_ORDER_Y:
        raise PublicKeyError("it is a point of small order, with which anybody could sign anything")
    if key in _PUBLISHED:
        raise PublicKeyError("it is an example of RFC 9421, whose private key everybody knows")
