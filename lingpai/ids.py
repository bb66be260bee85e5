"""Identifiers and credentials: how they are made, and how garbage is told from a credential without a look-up.

A credential is ``<prefix><id><secret><checksum>``, all base62, so that a double click selects the whole of it:

- prefix: what it is (``sk-lp-`` API key, ``at-lp-`` access token, ``rt-lp-`` refresh token, ``cs-lp-`` client secret,
  ``ss-lp-`` session of a browser, ``in-lp-`` invitation, ``sg-lp-`` secret to sign requests with)
- id: 12 characters, public, the indexed column it is found by
- secret: 43 characters, 256 bits from the operating system
- checksum: 6 characters, CRC-32 of everything before it, so that typos and floods of garbage never reach a look-up
  and secret scanners can be exact
"""

import os
import re
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from mmap import mmap
from time import time
from typing import Final, Literal

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6

Prefix = Literal["sk-lp-", "at-lp-", "rt-lp-", "cs-lp-", "ss-lp-", "in-lp-", "sg-lp-"]
CREDENTIAL_PATTERN: Final = r"\b(?:sk|at|rt|cs|ss|in|sg)-lp-[0-9A-Za-z]{61}\b"

_ANYWHERE = re.compile(CREDENTIAL_PATTERN.encode())
_PUBLIC_ID: Final = re.compile(r"[0-9A-Za-z]{12}")
_CREDENTIAL = re.compile(rb"(?:sk|at|rt|cs|ss|in|sg)-lp-([0-9A-Za-z]{12})[0-9A-Za-z]{43}([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class MintedCredential:
    """A credential just made. The token is shown to its owner once and never stored."""

    id: str
    token: str

    @property
    def hint(self) -> str:
        """What lists may show: the prefix and the last four characters (of the checksum, not of the secret)."""
        return f"{self.token[:6]}…{self.token[-4:]}"

    def __repr__(self) -> str:
        return f"MintedCredential(id={self.id!r})"


def random_base62(length: int) -> str:
    """`length` characters drawn evenly from base62 by the operating system's generator."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_id(prefix: str) -> str:
    """A random public identifier such as ``usr_4fK…``: 12 base62 characters after the prefix."""
    return f"{prefix}_{random_base62(ID_LENGTH)}"


def mint_credential(prefix: Prefix, *, public_id: str | None = None) -> MintedCredential:
    """Make a new credential of the given kind; with `public_id` another secret for the one that has this id."""
    return _credential(prefix, public_id or random_base62(ID_LENGTH), random_base62(SECRET_LENGTH))


def derived_credential(prefix: Prefix, public_id: str, secret: bytes) -> MintedCredential:
    """The credential with this id and a secret of 32 bytes: the same ones give the same credential."""
    digits, value = [], int.from_bytes(secret, "big")
    for _ in range(SECRET_LENGTH):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return _credential(prefix, public_id, "".join(digits))


def _credential(prefix: Prefix, public_id: str, secret: str) -> MintedCredential:
    body = f"{prefix}{public_id}{secret}"
    return MintedCredential(public_id, body + _checksum(body.encode()))


def is_public_id(text: str) -> bool:
    """Whether `text` has the form of a public id: 12 characters of base62."""
    return _PUBLIC_ID.fullmatch(text) is not None


def credential_id(token: bytes) -> str | None:
    """The public id inside `token`, or None when it is not a well-formed credential (form or checksum is wrong)."""
    match = _CREDENTIAL.fullmatch(token)
    if match is None or _checksum(token[:-CHECKSUM_LENGTH]) != match[2].decode():
        return None
    return match[1].decode()


def find_credentials(text: bytes | mmap) -> Iterator[tuple[int, bytes]]:
    """Where in `text` there is a credential, and the credential: what has the form and the right checksum, in its order."""
    for match in _ANYWHERE.finditer(text):
        if credential_id(match[0]) is not None:
            yield match.start(), match[0]


def _checksum(body: bytes) -> str:
    value = zlib.crc32(body)
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


_boot = os.urandom(6).hex().encode()
_requests = count(1)
_REQUEST_ID = re.compile(r"req_([0-9a-f]{8})[0-9a-f]{20,}")


def new_request_id(now: float | None = None) -> bytes:
    """A request id, unique across restarts; `now` in Unix seconds, for who has just read the clock.

    ``req_`` + 8 hex digits of the time (Unix seconds) + 12 of this process + a running number of at least 8.
    """
    return b"req_%08x%b%08x" % (int(time() if now is None else now), _boot, next(_requests))


def request_made_at(request_id: str) -> int | None:
    """When a request id was made, in Unix seconds; None when it is none of `new_request_id`'s."""
    match = _REQUEST_ID.fullmatch(request_id)
    return None if match is None else int(match[1], 16)
