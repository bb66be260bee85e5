"""Finders of leaked tokens: an access token (opaque, or a JWT) is revoked, a refresh token with everything that came from its sign-in."""

from abc import ABC, abstractmethod
from typing import Any

from sqlalchemy import Connection, Row

from lingpai.identity.interfaces import LEAKED, OnChange
from lingpai.identity.key_secrets import stored_token_secret
from lingpai.identity.leaks import Leak
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.oauth.jwt_tokens import JwtTokens
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.peppers import Peppers
from lingpai.ids import credential_id
from lingpai.storage.trail import Deed, Trail


class _LeakedTokens(ABC):
    """What the finders of tokens share."""

    def __init__(self, peppers: Peppers, *, on_change: OnChange, trail: Trail) -> None:
        """`on_change` is told of each access token that ended (kind `token`)."""
        self._peppers = peppers
        self._on_change = on_change
        self._trail = trail
        self._store = SqlTokenStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `lingpai.identity.leaks.Finder`."""
        return self._find(connection, token, now) is not None

    def tell(self, leak: Leak, began: float) -> None:
        """See `lingpai.identity.leaks.Finder`."""
        for each in leak.tokens:
            self._on_change("token", each, began)

    @abstractmethod
    def _find(self, connection: Connection, token: bytes, now: float) -> Row[Any] | None:
        """The row of a token that works; None for any other."""


class LeakedAccessTokens(_LeakedTokens):
    """The finder of access tokens (`at-lp-`). What else came from the same sign-in stays."""

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`."""
        row = self._find(connection, token, now)
        if row is None:
            return None
        gone = self._store.delete_access_token(connection, row.id)
        self._trail.record(connection, None, _revoked(row, "token", row.id))
        return Leak(
            kind="access_token",
            id=row.id,
            what=f"Access token `{row.id}` of `{row.user_name}`",
            done="It is revoked.",
            about=_about(row, is_of_sign_in=row.family_id is not None),
            tokens=tuple(gone),
        )

    def _find(self, connection: Connection, token: bytes, now: float) -> Row[Any] | None:
        token_id = credential_id(token)
        row = None if token_id is None else self._store.access_token(connection, token_id)
        is_right = stored_token_secret(row, self._peppers).match(token, self._peppers) is not None
        return row if row is not None and is_right and now < row.expires_at else None


class LeakedJwts(LeakedAccessTokens):
    """The finder of access tokens that are JWTs (`eyJ`). A signature takes the place of the secret."""

    def __init__(self, jwts: JwtTokens, peppers: Peppers, *, on_change: OnChange, trail: Trail) -> None:
        """As of `LeakedAccessTokens`."""
        super().__init__(peppers, on_change=on_change, trail=trail)
        self._jwts = jwts

    def _find(self, connection: Connection, token: bytes, now: float) -> Row[Any] | None:
        token_id = self._jwts.verified_id(token)
        row = None if token_id is None else self._store.access_token(connection, token_id)
        # An opaque one has a secret, which no signature stands for.
        return row if row is not None and row.secret_hmac is None and now < row.expires_at else None


class LeakedRefreshTokens(_LeakedTokens):
    """The finder of refresh tokens (`rt-lp-`).

    One that was used ends its family, too, as it does where it is used again (RFC 9700 section 4.14.2).
    """

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`."""
        row = self._find(connection, token, now)
        if row is None:
            return None
        gone = self._store.revoke_family(connection, row.family_id, now=now, because=LEAKED)
        self._trail.record(connection, None, _revoked(row, "family", row.family_id))
        return Leak(
            kind="refresh_token",
            id=row.id,
            what=f"Refresh token `{row.id}` of `{row.user_name}`",
            done="All tokens of that sign-in are revoked. Sign in again.",
            about=_about(row, is_of_sign_in=True),
            tokens=tuple(gone),
        )

    def _find(self, connection: Connection, token: bytes, now: float) -> Row[Any] | None:
        token_id = credential_id(token)
        row = None if token_id is None else self._store.refresh_token(connection, token_id)
        is_right = stored_token_secret(row, self._peppers).match(token, self._peppers) is not None
        if row is None or not is_right:
            return None
        return row if row.revoked_at is None and now < row.family_expires_at else None


def _about(row: Row[Any], *, is_of_sign_in: bool) -> tuple[str, str]:
    """The client that got a token for itself, else the user who signed in; the token has no owner any more."""
    if is_of_sign_in or row.client_id is None:
        return "user", row.user_id
    return "client", CLIENT_ID_PREFIX + row.client_id


def _revoked(row: Row[Any], kind: str, id_: str) -> Deed:
    client_id = None if row.client_id is None else CLIENT_ID_PREFIX + row.client_id
    return Deed(
        action="token.revoke",
        target_kind=kind,
        target_id=id_,
        target_name=row.user_name,
        before={"client_id": client_id, "scopes": list(row.scopes)},
        reason=LEAKED,
    )
