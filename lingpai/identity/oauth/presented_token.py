"""A token that a client shows to have it looked at or revoked: which one it says it is, and whether it is that one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from sqlalchemy import Connection, Row

from lingpai.identity.oauth.jwt_tokens import PREFIX, JwtTokens
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.ids import credential_id

Kind = Literal["access_token", "refresh_token"]
"""The names of RFC 7009 section 2.1."""

_KINDS: Final[dict[str, Kind]] = {"at-lp-": "access_token", "rt-lp-": "refresh_token"}
_STORE: Final = SqlTokenStore()


class Mint(Protocol):
    """Knows its tokens' secrets (`TokenMint`)."""

    def is_secret(self, token: str, version: int, stored: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """What is well-formed; whether there is such a token, `find` says. `is_signed`: a JWT whose signature is good."""

    kind: Kind
    id: str
    text: str
    is_signed: bool = False

    def find(self, connection: Connection, mint: Mint) -> Row[Any] | None:
        """The token's row, when it is that very token; None for an unknown id and for a wrong secret."""
        find = _STORE.access_token if self.kind == "access_token" else _STORE.refresh_token
        row = find(connection, self.id)
        if row is None:
            return None
        if self.is_signed or row.secret_hmac is None:
            return row if self.is_signed and row.secret_hmac is None else None
        return row if mint.is_secret(self.text, row.pepper_version, row.secret_hmac) else None


async def presented(
    text: str, jwts: JwtTokens, *, is_known: Callable[[bytes], bool]
) -> PresentedToken | None:
    """What `text` is, told by its form; None for whatever is no token of ours, which needs no look-up.

    A JWT is verified only if there may be one with its id: a signature takes longer than a look-up.
    """
    if text.startswith(PREFIX):
        claimed = jwts.claimed_id(text.encode())
        if claimed is None or not is_known(claimed.encode()):
            return None
        id_ = await asyncio.to_thread(jwts.verified_id, text.encode())
        return None if id_ is None else PresentedToken("access_token", id_, text, is_signed=True)
    kind = _KINDS.get(text[:6])
    id_ = credential_id(text.encode())
    return None if kind is None or id_ is None else PresentedToken(kind, id_, text)
