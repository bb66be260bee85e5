"""The digest of a message's content (RFC 9530): written, read and compared.

The content is the body as it was sent, after any content coding and without the framing of chunks.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final, Literal

from lingpai.wire.structured_field_parser import parse_dictionary
from lingpai.wire.structured_fields import Item, StructuredFieldError, serialize_dictionary

DigestAlgorithm = Literal["sha-256", "sha-512"]

# Section 5 of the RFC has weaker ones, too, and says not to rely on them: anybody can find another body for those.
_HASHES: Final = {"sha-256": "sha256", "sha-512": "sha512"}
_SIZES: Final = {"sha-256": 32, "sha-512": 64}


class ContentDigestError(ValueError):
    """The field, or the body, is not what it should be; the message says in which way."""


def content_digest(body: bytes, algorithm: DigestAlgorithm = "sha-256") -> str:
    """The value of `Content-Digest` for `body`, such as ``sha-256=:…:``."""
    return serialize_dictionary({algorithm: Item(_digest(body, algorithm))})


def parse_content_digest(value: str) -> dict[str, bytes]:
    """The digests in a `Content-Digest` field, by algorithm; at least one.

    Raises ContentDigestError for anything but SHA-256 and SHA-512 of the right size (RFC 9530, section 5).
    """
    try:
        members = parse_dictionary(value, unique_keys=True)
    except StructuredFieldError as exc:
        raise ContentDigestError(f"it is no dictionary of digests: {exc}") from exc
    if not members:
        raise ContentDigestError("it holds no digest")
    return {name: _read(name, member) for name, member in members.items()}


def check_content_digest(digests: Mapping[str, bytes], body: bytes | bytearray) -> None:
    """Compare what `parse_content_digest` gave with the `body` that was received: all digests must be its own.

    Raises ContentDigestError, which names the algorithm and never the right value.
    """
    for algorithm, digest in digests.items():
        if not hmac.compare_digest(_digest(body, algorithm), digest):
            raise ContentDigestError(f"its {algorithm} is not that of the {len(body)} bytes received")


def _read(name: str, member: object) -> bytes:
    if name not in _HASHES:
        raise ContentDigestError(f"`{name}` is not accepted; use sha-256 or sha-512")
    if not isinstance(member, Item) or not isinstance(member.value, bytes):
        raise ContentDigestError(f"`{name}` is no byte sequence: write `{name}=:BASE64:`")
    if len(member.value) != _SIZES[name]:
        raise ContentDigestError(f"`{name}` has {len(member.value)} bytes instead of {_SIZES[name]}")
    return member.value


def _digest(body: bytes | bytearray, algorithm: str) -> bytes:
    return hashlib.new(_HASHES[algorithm], body).digest()
