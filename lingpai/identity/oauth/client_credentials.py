"""The grant `client_credentials`: a program on its own behalf (RFC 6749 section 4.4)."""

from typing import Final

from sqlalchemy import Connection

from lingpai.identity.oauth.client_store import SqlClientStore, client_of
from lingpai.identity.oauth.errors import OAuthError, cannot_be_used, invalid_client
from lingpai.identity.oauth.token_request import Parts, TokenRequest, described
from lingpai.identity.oauth.tokens import Granted, Holder, wanted_scopes
from lingpai.storage.trail import Deed

_CLIENTS: Final = SqlClientStore()


async def grant(request: TokenRequest, parts: Parts) -> Granted:
    """A token for the client itself, without a refresh token (section 4.4.3). Raises OAuthError."""
    client = request.client
    if client is None:
        raise invalid_client("Say which client asks: by HTTP Basic, or as client_id and client_secret.")
    if client.is_public:  # section 4.4: confidential clients only
        raise OAuthError("unauthorized_client", "A client without a secret cannot use client_credentials.")
    request.check_grant("client_credentials")
    scopes = wanted_scopes(request.form, client.scopes, default=client.scopes)
    holder = Holder(user_id=client.user_id, user_name=client.user_name, client=client)

    def write(connection: Connection) -> Granted:
        # It was good a moment ago. Whoever disables it ends its tokens, and none may come after that.
        row = _CLIENTS.row(connection, client.id)
        because = "deleted" if row is None else client_of(row).disabled_because
        if because is not None:
            raise cannot_be_used(because)
        granted = parts.mint.access_token(connection, holder, scopes, now=request.now)
        parts.trail.record(
            connection,
            None,
            Deed(
                action="token.issue",
                target_kind="token",
                target_id=granted.access_token_id,
                target_name=client.name,
                project_id=client.project_id,
                after=described(request, granted, grant="client_credentials"),
            ),
        )
        return granted

    return await parts.commit(write)
