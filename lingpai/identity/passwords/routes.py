"""``PUT /api/v1/users/{id}/password``."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from lingpai.identity.passwords.schemas import PasswordChange, PasswordChanged
from lingpai.identity.people import People
from lingpai.identity.references import UserReference
from lingpai.identity.sessions.cookies import csrf_token, device_cookie
from lingpai.identity.sessions.routes import address_of, give_cookies, user_agent_of
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES


def password_routes(people: People) -> APIRouter:
    """The route of passwords. Wherever an id stands, the name will do."""
    router = APIRouter(prefix="/api/v1/users", tags=["users"], responses=ERROR_RESPONSES)

    @router.put("/{id}/password")
    async def change_password(
        id: UserReference,  # noqa: A002  the name on the wire
        body: PasswordChange,
        request: Request,
        response: Response,
        caller: Annotated[Principal, require(ANY)],
    ) -> PasswordChanged:
        """Change your password. It ends all your sessions and refresh tokens; API keys stay."""
        current = body.current_password
        session = await people.password_changes.change(
            caller,
            id,
            password=body.password.get_secret_value(),
            current=current.get_secret_value() if current else None,
            address=address_of(request),
            user_agent=user_agent_of(request),
            device=device_cookie(request),
        )
        if session is None:
            return PasswordChanged(csrf_token=None)
        give_cookies(people, request, response, session)
        return PasswordChanged(csrf_token=csrf_token(session.token.encode()))

    return router
