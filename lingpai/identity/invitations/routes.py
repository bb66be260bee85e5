"""``/api/v1/users/{id}/invitation`` for administrators, ``/api/v1/invitations`` for those whom they invite."""

import asyncio
import time
from math import ceil
from typing import Annotated

from fastapi import APIRouter, Request, Response

from lingpai.errors import LingpaiError
from lingpai.identity.invitations.schemas import (
    CreatedInvitationView,
    InvitationAccept,
    InvitationLookUp,
    InvitationView,
)
from lingpai.identity.invitations.store import StoredInvitation
from lingpai.identity.known_ids import LookUps
from lingpai.identity.people import People
from lingpai.identity.references import UserReference
from lingpai.identity.scopes import Scope
from lingpai.identity.sessions.cookies import check_may_sign_in
from lingpai.identity.sessions.routes import address_of, give_cookies, user_agent_of, view_of_new
from lingpai.identity.sessions.schemas import CurrentSessionView
from lingpai.principal import Principal
from lingpai.web.auth import open_route, require
from lingpai.web.errors import ERROR_RESPONSES


def invitation_routes(people: People) -> APIRouter:
    """The routes of invitations. Wherever a user's id stands, the name will do."""
    router = APIRouter(prefix="/api/v1", tags=["users"], responses=ERROR_RESPONSES)
    invitations = people.invitations
    look_ups = LookUps()

    @router.post("/users/{id}/invitation", status_code=201)
    def invite_user(
        id: UserReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> CreatedInvitationView:
        """Invite a user to choose a password. This answer is the only place where the invitation ever appears."""
        return CreatedInvitationView.of_created(invitations.make(caller, id))

    @router.delete("/users/{id}/invitation", status_code=204)
    def withdraw_invitation(
        id: UserReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> None:
        """Take back the invitation of a user."""
        invitations.withdraw(caller, id)

    @router.post("/invitations/look-up")
    @open_route("who has an invitation has no other credential yet")
    async def look_up(body: InvitationLookUp, request: Request) -> InvitationView:
        """Whom an invitation is for, before it is accepted."""
        return InvitationView.of(await found(body.invitation.get_secret_value(), request))

    @router.post("/invitations/accept", status_code=201)
    @open_route("who has an invitation has no other credential yet")
    async def accept(body: InvitationAccept, request: Request, response: Response) -> CurrentSessionView:
        """Choose a password, and be signed in. The invitation is used up; earlier sessions and refresh tokens end."""
        token, password = body.invitation.get_secret_value(), body.password.get_secret_value()
        invitation = await found(token, request)
        await asyncio.to_thread(people.passwords.check_new, password, user_name=invitation.user_name)
        user, session = await asyncio.to_thread(
            invitations.accept,
            token,
            await people.passwords.hash(password),
            address=address_of(request),
            user_agent=user_agent_of(request),
        )
        people.passwords.forget_failures(user.name)
        give_cookies(people, request, response, session)
        return view_of_new(user, session)

    async def found(token: str, request: Request) -> StoredInvitation:
        """The invitation; those that are none are looked up at a bounded rate, as keys are."""
        check_may_sign_in(request)
        network = people.passwords.network_of(address_of(request)) or ""
        wait_s = look_ups.wait_s(network, time.monotonic())
        if wait_s:
            raise LingpaiError(
                "rate_limit_exceeded",
                f"Too many invitations that are none came from your address. Try again in {ceil(wait_s)} s.",
                headers={"retry-after": str(ceil(wait_s))},
            )
        try:
            return await asyncio.to_thread(invitations.find, token)
        except LingpaiError:
            request.state.is_offence = True
            look_ups.failed(network, time.monotonic())
            raise

    return router
