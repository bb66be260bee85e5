"""Introspection: a server that is given a token asks whether it is good (RFC 7662)."""

import asyncio
import time
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.known_ids import LookUps
from lingpai.identity.oauth.errors import OAuthError, invalid_client, too_often
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, Client
from lingpai.identity.oauth.presented_token import Mint, PresentedToken, presented
from lingpai.identity.oauth.token_request import Parts, TokenRequest
from lingpai.identity.scopes import Scope, effective_scopes

_INACTIVE: Final = {"active": False}


class Readable(Protocol):
    """A database to read from."""

    def read(self) -> Any: ...


class Introspection:
    """Answers questions about tokens, and bounds how many that there are not a client may ask for (section 2.1).

    Only these count, so nobody can keep a server that asks for its callers from hearing of good ones.
    """

    def __init__(
        self,
        database: Readable,
        *,
        guesses: LookUps | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._guesses = guesses or LookUps(per_s=50.0, burst=1000, all_per_s=500.0, all_burst=10_000)
        self._monotonic = monotonic

    async def answer(self, request: TokenRequest, parts: Parts, issuer: str) -> dict[str, Any]:
        """What is known of the token in the form: `{"active": false}` and nothing else for all that is not good *and*
        visible to the client that asks (sections 2.2 and 2.3). A client sees its own tokens; one with the scope
        `tokens:introspect` sees all.

        Raises OAuthError: invalid_client for callers without a secret (section 2.1), invalid_request without a token,
        temporarily_unavailable after too many tokens that there are not.
        """
        client = request.client
        if client is None or client.is_public:
            raise invalid_client(
                "Only clients with a secret may ask. Authenticate by HTTP Basic or in the body."
            )
        token = request.form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "The parameter token is missing.")
        shown = await presented(token, parts.jwts, is_known=parts.is_known_token)
        row = None if shown is None else await asyncio.to_thread(_read, self._database, shown, parts.mint)
        if shown is None or row is None:
            self._note_guess(client)
            return _INACTIVE
        if not _may_see(client, row):
            return _INACTIVE
        active = _active_token if shown.kind == "access_token" else _active_refresh_token
        return active(row, request.now, issuer)

    def _note_guess(self, client: Client) -> None:
        now = self._monotonic()
        wait_s = self._guesses.wait_s(client.id, now)
        if wait_s:
            raise too_often(
                max(1, ceil(wait_s)), "The client has asked for too many tokens that there are not."
            )
        self._guesses.failed(client.id, now)


def _read(database: Readable, shown: PresentedToken, mint: Mint) -> Row[Any] | None:
    with database.read() as connection:
        return shown.find(connection, mint)


def _may_see(client: Client, row: Row[Any]) -> bool:
    return row.client_id == client.id or Scope.TOKENS_INTROSPECT in client.scopes


def _active_token(row: Row[Any], now: float, issuer: str) -> dict[str, Any]:
    expires_at = min(row.expires_at, row.client_expires_at or row.expires_at)
    if now >= expires_at or _is_disabled(row):
        return _INACTIVE
    return _described(row, expires_at, issuer) | {"token_type": "Bearer"}


def _active_refresh_token(row: Row[Any], now: float, issuer: str) -> dict[str, Any]:
    expires_at = min(row.expires_at, row.family_expires_at, row.client_expires_at or row.expires_at)
    if now >= expires_at or _is_disabled(row) or any((row.revoked_at, row.used_at)):
        return _INACTIVE
    return _described(row, expires_at, issuer)


def _is_disabled(row: Row[Any]) -> bool:
    return row.user_disabled_at is not None or bool(row.client_is_off)


def _scopes(row: Row[Any]) -> frozenset[str]:
    """Those that take effect now: as far as client and role allow."""
    scopes = effective_scopes(row.scopes, row.role)
    return scopes if row.client_scopes is None else scopes.intersection(row.client_scopes)


def _subject(row: Row[Any]) -> str:
    """As in a JWT: a client that acts for itself is about itself (RFC 9068 section 2.2)."""
    is_own = row.client_id is not None and row.family_id is None
    return CLIENT_ID_PREFIX + row.client_id if is_own else str(row.user_id)


def _described(row: Row[Any], expires_at: float, issuer: str) -> dict[str, Any]:
    description = {
        "active": True,
        "scope": " ".join(sorted(_scopes(row))),
        "username": row.user_name,
        "sub": _subject(row),
        "iss": issuer,
        "iat": int(row.created_at),
        "exp": int(expires_at),
        "jti": row.id,
    }
    return (
        description
        if row.client_id is None
        else description | {"client_id": CLIENT_ID_PREFIX + row.client_id}
    )
