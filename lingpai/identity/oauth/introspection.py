"""Introspection: a server that is given a token asks whether it is good (RFC 7662)."""

import asyncio
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.oauth.errors import OAuthError, invalid_client
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, Client
from lingpai.identity.oauth.token_request import Parts, TokenRequest
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.scopes import Scope, effective_scopes
from lingpai.ids import credential_id

_STORE: Final = SqlTokenStore()
_INACTIVE: Final = {"active": False}


class Readable(Protocol):
    """A database to read from."""

    def read(self) -> Any: ...


async def introspect(request: TokenRequest, parts: Parts, database: Readable, issuer: str) -> dict[str, Any]:
    """What is known of the token in the form: `{"active": false}` and nothing else for all that is not good *and*
    visible to the client that asks (sections 2.2 and 2.3). A client sees its own tokens; one with the scope
    `tokens:introspect` sees all.

    Raises OAuthError: invalid_client for callers without a secret (section 2.1), invalid_request without a token.
    """
    client = request.client
    if client is None or client.is_public:
        raise invalid_client("Only clients with a secret may ask. Authenticate by HTTP Basic or in the body.")
    token = request.form.get("token")
    if token is None:
        raise OAuthError("invalid_request", "The parameter token is missing.")
    if credential_id(token.encode()) is None or not token.startswith(("at-lp-", "rt-lp-")):
        return _INACTIVE
    is_access_token = token.startswith("at-lp-")
    row = await asyncio.to_thread(_read, database, token[6:18], is_access_token)
    if row is None or row.secret_hmac is None:
        return _INACTIVE
    if not parts.mint.is_secret(token, row.pepper_version, row.secret_hmac) or not _may_see(client, row):
        return _INACTIVE
    return (
        _active_token(row, request.now, issuer)
        if is_access_token
        else _active_refresh_token(row, request.now, issuer)
    )


def _read(database: Readable, token_id: str, is_access_token: bool) -> Row[Any] | None:
    with database.read() as connection:
        find = _STORE.access_token if is_access_token else _STORE.refresh_token
        return find(connection, token_id)


def _may_see(client: Client, row: Row[Any]) -> bool:
    return row.client_id == client.id or Scope.TOKENS_INTROSPECT in client.scopes


def _active_token(row: Row[Any], now: float, issuer: str) -> dict[str, Any]:
    expires_at = min(row.expires_at, row.client_expires_at or row.expires_at)
    if now >= expires_at or row.user_disabled_at is not None or row.client_disabled_at is not None:
        return _INACTIVE
    scopes = effective_scopes(row.scopes, row.role)
    if row.client_scopes is not None:
        scopes = scopes.intersection(row.client_scopes)
    return _described(row, scopes, expires_at, issuer) | {"token_type": "Bearer"}


def _active_refresh_token(row: Row[Any], now: float, issuer: str) -> dict[str, Any]:
    expires_at = min(row.expires_at, row.family_expires_at)
    if now >= expires_at or any((row.user_disabled_at, row.revoked_at, row.used_at)):
        return _INACTIVE
    return _described(row, effective_scopes(row.scopes, row.role), expires_at, issuer)


def _described(row: Row[Any], scopes: frozenset[str], expires_at: float, issuer: str) -> dict[str, Any]:
    description = {
        "active": True,
        "scope": " ".join(sorted(scopes)),
        "username": row.user_name,
        "sub": row.user_id,
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
