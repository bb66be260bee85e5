"""A request for a token, and what a grant needs to answer it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from lingpai.identity.interfaces import User
from lingpai.identity.oauth.client_authentication import Asking
from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.interfaces import Client, Grant
from lingpai.identity.oauth.jwt_tokens import JwtTokens
from lingpai.identity.oauth.tokens import Granted, TokenMint
from lingpai.storage.trail import Trail
from lingpai.web.transport import Transport

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What came in: the form, who asks, from where, how, whether a program on this machine does, and when (Unix seconds)."""

    form: Mapping[str, str] = field(repr=False)
    asking: Asking
    address: str
    transport: Transport
    is_local: bool
    user_agent: str
    now: float

    @property
    def client(self) -> Client | None:
        """The registered client, if one asks."""
        return None if self.asking.known is None else self.asking.known.client

    def check_grant(self, grant: Grant) -> None:
        """Raise OAuthError unauthorized_client unless the client may use `grant`."""
        if self.client is not None and grant not in self.client.grants:
            raise OAuthError(
                "unauthorized_client",
                f"The client may not use {grant}. An administrator can allow it.",
            )


class Commit(Protocol):
    """`GroupCommit.run`."""

    def __call__(
        self, job: Callable[[Connection], T], then: Callable[[T], object] | None = None
    ) -> Awaitable[T]: ...


class Readable(Protocol):
    """A database to read from (`storage.Database`)."""

    def read(self) -> Any: ...


class PasswordCheck(Protocol):
    """Knows users by their passwords."""

    async def verify(self, name: str, password: str, *, address: str) -> User:
        """The user. Raises OAuthError: invalid_grant, the same and in the same time for whatever is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the grants share."""

    mint: TokenMint
    jwts: JwtTokens
    is_known_token: Callable[[bytes], bool]
    """Whether there may be an access token with this id; asked on the event loop."""
    commit: Commit
    trail: Trail
    database: Readable
    passwords: PasswordCheck
    on_revoked: Callable[[Sequence[str]], None]
    """Told on the event loop, after the commit, which access tokens are revoked."""


GrantFlow = Callable[[TokenRequest, Parts], Awaitable[Granted]]


def described(request: TokenRequest, granted: Granted, **more: Any) -> dict[str, Any]:
    """What the audit trail says of a token: never the token."""
    client = request.client
    return {
        "client_id": None if client is None else client.client_id,
        "scopes": list(granted.scopes),
        "expires_in": granted.expires_in,
        **more,
    }


class NoPasswords:
    """Fulfils `PasswordCheck` where nobody has a password."""

    async def verify(self, name: str, password: str, *, address: str) -> User:  # noqa: ARG002  a password is needed
        """Raise OAuthError invalid_grant."""
        raise OAuthError("invalid_grant", "The user name or the password is wrong.")
