"""The grant `password`: user name and password for tokens (RFC 6749 section 4.3).

RFC 9700 section 2.4 forbids it: whatever program is given the password can do all that its owner can, second factors
have no place in it, and people learn to type passwords anywhere. It is here because programs in the field use it, on by
default only on the same machine and for clients that an administrator allows to.
"""

from dataclasses import replace

from sqlalchemy import Connection

from lingpai.identity.interfaces import User
from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.token_request import Parts, TokenRequest, described
from lingpai.identity.oauth.tokens import Granted, Holder, wanted_scopes
from lingpai.identity.scopes import DEFAULT_SCOPES, SCOPES_OF_ROLE
from lingpai.identity.store import SqlUserStore
from lingpai.storage.trail import Deed


async def grant(request: TokenRequest, parts: Parts) -> Granted:
    """An access token and a refresh token for a user. Raises OAuthError."""
    request.check_grant("password")
    name, password = _name_and_password(request)
    user = await parts.passwords.verify(name, password, address=request.address)
    client = request.client
    may_have = SCOPES_OF_ROLE[user.role]
    if client is not None:
        may_have = may_have.intersection(client.scopes)
    default = may_have.intersection(DEFAULT_SCOPES if client is None else client.scopes)
    scopes = wanted_scopes(request.form, sorted(may_have), default=sorted(default))

    def write(connection: Connection) -> Granted:
        _check_still_is(connection, user)
        return _sign_in(connection, request, parts, user, scopes)

    return await parts.commit(write)


def _name_and_password(request: TokenRequest) -> tuple[str, str]:
    if request.asking.user is not None:
        return request.asking.user.name, request.asking.user.secret
    form = request.form
    if "username" not in form or "password" not in form:
        raise OAuthError(
            "invalid_request",
            "Send username and password in the body, or as HTTP Basic when no client authenticates.",
        )
    return form["username"], form["password"]


def _check_still_is(connection: Connection, user: User) -> None:
    """Checking a password takes a while. What ended meanwhile ended every token, and none may begin after that."""
    now_is = SqlUserStore().find(connection, user.id, only=None)
    if (
        now_is is None
        or now_is.disabled_at is not None
        or now_is.password_changed_at != user.password_changed_at
    ):
        raise OAuthError(
            "invalid_grant", "The password was changed, or the user disabled, in this moment. Sign in again."
        )


def _sign_in(
    connection: Connection, request: TokenRequest, parts: Parts, user: User, scopes: tuple[str, ...]
) -> Granted:
    client, now = request.client, request.now
    can_refresh = client is None or "refresh_token" in client.grants
    holder = Holder(user_id=user.id, user_name=user.name, client=client)
    # A family in any case: it is what ends when the user signs out or changes the password.
    family = parts.mint.family(
        connection,
        holder,
        scopes,
        now=now,
        can_refresh=can_refresh,
        address=request.address,
        user_agent=request.user_agent,
    )
    refresh_token = parts.mint.refresh_token(connection, family, now=now) if can_refresh else None
    access = parts.mint.access_token(connection, replace(holder, family=family), scopes, now=now)
    granted = replace(access, refresh_token=refresh_token)
    parts.trail.record(
        connection,
        None,
        Deed(
            action="token.issue",
            target_kind="token",
            target_id=granted.access_token_id,
            target_name=user.name,
            after=described(request, granted, grant="password", user=user.name, family=family.id),
        ),
    )
    return granted
