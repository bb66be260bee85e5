"""Revocation: tokens end before their time, at once and for good (RFC 7009)."""

from typing import Any, Final

from sqlalchemy import Connection, Row

from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.token_request import Parts, TokenRequest
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.ids import credential_id
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
    # `token_type_hint` only says where to look first (section 2.1); the prefix of ours tells it anyway.
    if credential_id(token.encode()) is None or not token.startswith(("at-lp-", "rt-lp-")):
        return

    def write(connection: Connection) -> list[str]:
        if token.startswith("rt-lp-"):
            return _revoke_refresh_token(connection, request, parts, token)
        return _revoke_access_token(connection, request, parts, token)

    await parts.commit(write, parts.on_revoked)


def _revoke_refresh_token(
    connection: Connection, request: TokenRequest, parts: Parts, token: str
) -> list[str]:
    row = _STORE.refresh_token(connection, token[6:18])
    if row is None or not _is_own(request, parts, token, row):
        return []
    gone = _STORE.revoke_family(connection, row.family_id, now=request.now, because="revoked")
    if row.revoked_at is None:
        _note(connection, request, parts, kind="family", id_=row.family_id, user_name=row.user_name)
    return gone


def _revoke_access_token(
    connection: Connection, request: TokenRequest, parts: Parts, token: str
) -> list[str]:
    row = _STORE.access_token(connection, token[6:18])
    if row is None or row.secret_hmac is None or not _is_own(request, parts, token, row):
        return []
    _note(connection, request, parts, kind="token", id_=row.id, user_name=row.user_name)
    return _STORE.delete_access_token(connection, row.id)


def _is_own(request: TokenRequest, parts: Parts, token: str, row: Row[Any]) -> bool:
    """Whether it is that very token, and the client's who asks."""
    client_id = None if request.client is None else request.client.id
    is_right = parts.mint.is_secret(token, row.pepper_version, row.secret_hmac)
    return is_right and row.client_id == client_id


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
