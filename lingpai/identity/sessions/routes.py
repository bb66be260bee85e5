"""``/api/v1/sessions``: signing in, out, and seeing where one is signed in."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.passwords.service import Refusal
from lingpai.identity.people import People
from lingpai.identity.scopes import SCOPES_OF_ROLE, Scope
from lingpai.identity.sessions.cookies import (
    check_may_sign_in,
    clear_session_cookie,
    csrf_token,
    device_cookie,
    session_cookie,
    set_cookies,
)
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.identity.sessions.schemas import CurrentSessionView, SessionsEnded, SessionView, SignIn
from lingpai.principal import Principal
from lingpai.web.auth import ANY, open_route, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    page_of,
    place_of,
    when_made,
)

UserFilter = Annotated[str | None, Query(max_length=64, description="Those of this user (name or id).")]


def session_routes(people: People) -> APIRouter:
    """The routes of sessions. Their answers must not be stored by anybody."""
    router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"], responses=ERROR_RESPONSES)
    sessions = people.sessions

    @router.post("", status_code=201)
    @open_route("this is where a name and a password become a session")
    async def sign_in(body: SignIn, request: Request, response: Response) -> CurrentSessionView:
        """Sign in. The session is in the cookie of the answer, and nowhere else."""
        try:
            user = await _verified(people, body, request)
        except LingpaiError:
            request.state.is_offence = True  # the front listens less to who keeps guessing
            raise
        session = await asyncio.to_thread(
            sessions.sign_in,
            user,
            address=address_of(request),
            user_agent=user_agent_of(request),
            replaces=await _earlier(people, request),
        )
        give_cookies(people, request, response, session)
        return view_of_new(user, session)

    @router.get("")
    def list_sessions(
        caller: Annotated[Principal, require(Scope.SESSIONS_READ)],
        user: UserFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[SessionView]:
        """List sessions, oldest first: all for an administrator, their own for everybody else."""
        found = sessions.list(caller, user=user, after=place_of(cursor), limit=limit + 1)
        return page_of(found, limit, view=lambda each: SessionView.of(each, caller), place=when_made)

    @router.get("/current")
    def show_current(caller: Annotated[Principal, require(ANY)], request: Request) -> CurrentSessionView:
        """The session in the cookie: who is signed in, what they may do, and what a page must send along."""
        token = session_cookie(request)
        if token is None or caller.session_id is None:
            raise _no_current()
        session = sessions.get(caller, caller.session_id)
        return CurrentSessionView.of_current(
            session, csrf_token(token), role=caller.role, scopes=caller.scopes
        )

    @router.delete("/current", status_code=204)
    def sign_out(caller: Annotated[Principal, require(ANY)], request: Request, response: Response) -> None:
        """Sign out: the session ends, and its cookie goes."""
        if caller.session_id is None:
            raise _no_current()
        sessions.end(caller, caller.session_id)
        clear_session_cookie(request, response)

    @router.delete("/{id}", status_code=204)
    def end_session(
        id: Annotated[str, Path(description="The session's id, as the list has it.")],  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.SESSIONS_WRITE)],
    ) -> None:
        """End a session at once. Programs that have signed in stay so."""
        sessions.end(caller, id)

    @router.delete("")
    def end_others(
        caller: Annotated[Principal, require(Scope.SESSIONS_WRITE)], user: UserFilter = None
    ) -> SessionsEnded:
        """Sign out everywhere: all your sessions end but the one that asks, and all tokens of programs that have signed in.

        An administrator may name another user. Keys stay, and so do the tokens that clients got for themselves.
        """
        ended, programs = sessions.end_others(caller, user)
        return SessionsEnded(ended=ended, programs=programs)

    return router


def view_of_new(user: User, session: NewSession) -> CurrentSessionView:
    """What a page hears about the session it has just got."""
    token = csrf_token(session.token.encode())
    return CurrentSessionView.of_current(
        session.session, token, role=user.role, scopes=SCOPES_OF_ROLE[user.role]
    )


def give_cookies(people: People, request: Request, response: Response, session: NewSession) -> None:
    """Put a session into the browser, and the mark that its user has signed in on this device."""
    name = session.session.user_name
    is_known = people.devices.recognise(device_cookie(request), name) is not None
    set_cookies(
        request,
        response,
        token=session.token,
        device=None if is_known else people.devices.issue(name),
        max_age=int(people.settings.session_lifetime_s),
    )


def address_of(request: Request) -> str:
    """From where the request came; empty for the admin socket."""
    return request.client.host if request.client else ""


def user_agent_of(request: Request) -> str:
    """What the browser says it is."""
    return request.headers.get("user-agent", "")


async def _verified(people: People, body: SignIn, request: Request) -> User:
    check_may_sign_in(request)
    found = await people.passwords.verify(
        body.name, body.password.get_secret_value(), address_of(request), device=device_cookie(request)
    )
    if isinstance(found, Refusal):
        raise found.error()
    return found


async def _earlier(people: People, request: Request) -> Principal | None:
    """The session that this browser had until now (OWASP ASVS 5.0, 7.2.4: it ends).

    None as well when its cookie cannot be used: whatever another page has put there must not keep anybody from signing in.
    """
    try:
        token = session_cookie(request)
        return None if token is None else await people.sessions.caller_of(token, address_of(request))
    except LingpaiError:
        return None


def _no_current() -> LingpaiError:
    return LingpaiError("not_found", "You call with a key and not with a session: there is no current one.")
