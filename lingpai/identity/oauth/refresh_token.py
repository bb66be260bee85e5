"""The grant `refresh_token`: another access token, and another refresh token in the place of the one sent.

RFC 6749 section 6, RFC 9700 section 4.14: a refresh token works once. One that comes again was stolen, or its thief
came first; nobody can tell, so all tokens of that sign-in end.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row

from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.token_request import Parts, TokenRequest, described
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.oauth.tokens import Family, Granted, Holder, wanted_scopes
from lingpai.identity.scopes import effective_scopes
from lingpai.ids import credential_id
from lingpai.storage.trail import Deed

_STORE = SqlTokenStore()


@dataclass(frozen=True, slots=True)
class _Revoked:
    """The family has ended because its token was used twice. Not raised: what was written must stay."""

    access_tokens: list[str]


class RefreshFlow:
    """The grant, with the grace period that the settings give."""

    def __init__(self, grace_s: float) -> None:
        """`grace_s`: how long after its use a refresh token gives the same successor again; 0 for never."""
        self.grace_s = grace_s

    async def grant(self, request: TokenRequest, parts: Parts) -> Granted:
        """New tokens for an old refresh token. Raises OAuthError."""
        request.check_grant("refresh_token")
        token = request.form.get("refresh_token")
        if token is None:
            raise OAuthError("invalid_request", "The parameter refresh_token is missing.")
        if not token.startswith("rt-lp-") or credential_id(token.encode()) is None:
            raise _no_longer_valid()

        if not await asyncio.to_thread(
            _is_there, token, parts
        ):  # made-up tokens do not queue for the write lock
            raise _no_longer_valid()

        def write(connection: Connection) -> Granted | _Revoked:
            return self._write(connection, request, parts, token)

        def tell(outcome: Granted | _Revoked) -> None:
            if isinstance(outcome, _Revoked):
                parts.on_revoked(outcome.access_tokens)

        outcome = await parts.commit(write, tell)
        if isinstance(outcome, _Revoked):
            raise OAuthError(
                "invalid_grant",
                "The refresh token was used before, so all tokens of that sign-in have ended. Sign in again.",
            )
        return outcome

    def _write(
        self, connection: Connection, request: TokenRequest, parts: Parts, token: str
    ) -> Granted | _Revoked:
        row = _STORE.refresh_token(connection, token[6:18])
        if row is None or not parts.mint.is_secret(token, row.pepper_version, row.secret_hmac):
            raise _no_longer_valid()
        client = request.client
        if row.client_id != (None if client is None else client.id):  # section 6: bound to its client
            raise _no_longer_valid()
        # The client was good a moment ago; it may have been disabled, or reported as leaked, since.
        if row.revoked_at is not None or row.user_disabled_at is not None or row.client_is_off:
            raise _no_longer_valid()
        if row.used_at is not None:
            return self._used_again(connection, request, parts, token, row)
        if request.now >= min(row.expires_at, row.family_expires_at):
            raise _no_longer_valid()
        scopes = _scopes(request, row)
        successor = parts.mint.successor(connection, token, _family(row), now=request.now)
        if successor is None:
            raise AssertionError("the write lock is held, so nobody can have used it meanwhile")
        return _granted(connection, request, parts, row, scopes=scopes, refresh_token=successor)

    def _used_again(
        self, connection: Connection, request: TokenRequest, parts: Parts, token: str, row: Row[Any]
    ) -> Granted | _Revoked:
        successor = _STORE.refresh_token(connection, row.successor_id)
        # Those who come at the same time may be written in another order than they came in.
        is_in_grace = abs(request.now - row.used_at) < self.grace_s
        if is_in_grace and successor is not None and successor.used_at is None:
            # Only the immediate predecessor: once the successor is used, whoever comes with this one is late.
            if request.now >= successor.expires_at:
                raise _no_longer_valid()
            again = parts.mint.derived(token, row.successor_id, successor.pepper_version)
            return _granted(
                connection, request, parts, row, scopes=_scopes(request, row), refresh_token=again.token
            )
        gone = _STORE.revoke_family(
            connection, row.family_id, now=request.now, because="refresh token reused"
        )
        parts.trail.record(
            connection,
            None,
            Deed(
                action="token.reuse",
                target_kind="family",
                target_id=row.family_id,
                target_name=row.user_name,
                result="refused",
                reason="A refresh token was used twice; all tokens of the sign-in have ended.",
                after={"refresh_token": row.id, "revoked_access_tokens": len(gone)},
            ),
        )
        return _Revoked(gone)


def _is_there(token: str, parts: Parts) -> bool:
    with parts.database.read() as connection:
        row = _STORE.refresh_token(connection, token[6:18])
    return row is not None and parts.mint.is_secret(token, row.pepper_version, row.secret_hmac)


def _family(row: Row[Any]) -> Family:
    return Family(row.family_id, row.family_expires_at)


def _scopes(request: TokenRequest, row: Row[Any]) -> tuple[str, ...]:
    """Those asked for, else those of the family, as far as role and client allow them still."""
    scopes = effective_scopes(row.scopes, row.role)
    if request.client is not None:
        scopes = scopes.intersection(request.client.scopes)
    return wanted_scopes(request.form, sorted(scopes), default=sorted(scopes))


def _granted(
    connection: Connection,
    request: TokenRequest,
    parts: Parts,
    row: Row[Any],
    *,
    scopes: tuple[str, ...],
    refresh_token: str,
) -> Granted:
    holder = Holder(
        user_id=row.user_id,
        user_name=row.user_name,
        client=request.client,
        family=_family(row),
    )
    access = parts.mint.access_token(connection, holder, scopes, now=request.now)
    granted = replace(access, refresh_token=refresh_token)
    parts.trail.record(
        connection,
        None,
        Deed(
            action="token.refresh",
            target_kind="token",
            target_id=granted.access_token_id,
            target_name=row.user_name,
            after=described(request, granted, grant="refresh_token", family=row.family_id),
        ),
    )
    return granted


def _no_longer_valid() -> OAuthError:
    return OAuthError(
        "invalid_grant", "The refresh token is unknown, expired, revoked or of another client. Sign in again."
    )
