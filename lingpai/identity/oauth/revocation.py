"""Revocation: tokens end before their time, at once and for good (RFC 7009)."""

import asyncio
from typing import Any, Final

from sqlalchemy import Connection, Row

from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.presented_token import PresentedToken, presented
from lingpai.identity.oauth.token_request import Parts, TokenRequest
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.storage.trail import Deed

_STORE: Final = SqlTokenStore()


async def revoke(request: TokenRequest, parts: Parts) -> None:
    """Revoke the token in the form; with a refresh token all of its family (section 2.1).

    Whatever cannot be revoked - unknown, expired, malformed, another client's - is answered like success (section 2.2),
    so that nobody learns anything by trying. Raises OAuthError invalid_request when there is no token.
    """
    token = request.form.get("token")
    if token is None:
        raise OAuthError("invalid_request", "The parameter token is missing.")
    # `token_type_hint` only says where to look first (section 2.1); the form of ours tells it anyway.
    shown = await presented(token, parts.jwts, is_known=parts.is_known_token)
    # Looked up first, so that made-up tokens do not queue for the write lock.
    if shown is not None and await asyncio.to_thread(_is_there, shown, parts):
        await parts.commit(lambda connection: _revoke(connection, request, parts, shown), parts.on_revoked)


def _is_there(shown: PresentedToken, parts: Parts) -> bool:
    with parts.database.read() as connection:
        return shown.find(connection, parts.mint) is not None


def _revoke(connection: Connection, request: TokenRequest, parts: Parts, shown: PresentedToken) -> list[str]:
    row = shown.find(connection, parts.mint)
    if row is None or row.client_id != (None if request.client is None else request.client.id):
        return []  # section 2.1: another client's stays
    if shown.kind == "refresh_token":
        return _revoke_family(connection, request, parts, row)
    _note(connection, request, parts, kind="token", id_=row.id, user_name=row.user_name)
    return _STORE.delete_access_token(connection, row.id)


def _revoke_family(connection: Connection, request: TokenRequest, parts: Parts, row: Row[Any]) -> list[str]:
    gone = _STORE.revoke_family(connection, row.family_id, now=request.now, because="revoked")
    if row.revoked_at is None:
        _note(connection, request, parts, kind="family", id_=row.family_id, user_name=row.user_name)
    return gone


def _note(
    connection: Connection, request: TokenRequest, parts: Parts, *, kind: str, id_: str, user_name: str
) -> None:
    client = request.client
    parts.trail.record(
        connection,
        None,
        Deed(
            action="token.revoke",
            target_kind=kind,
            target_id=id_,
            target_name=user_name,
            before={"client_id": None if client is None else client.client_id},
        ),
    )
