"""The grant `client_credentials`: a program on its own behalf (RFC 6749 section 4.4)."""

from sqlalchemy import Connection

from lingpai.identity.oauth.errors import OAuthError, invalid_client
from lingpai.identity.oauth.token_request import Parts, TokenRequest, described
from lingpai.identity.oauth.tokens import Granted, Holder, wanted_scopes
from lingpai.storage.trail import Deed


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
