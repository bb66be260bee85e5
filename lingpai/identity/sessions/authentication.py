"""Who calls the management API by cookie."""

from starlette.requests import Request

from lingpai.errors import LingpaiError
from lingpai.identity.sessions.cookies import check_page, cookie_that_clears, session_cookie
from lingpai.identity.sessions.service import Sessions
from lingpai.principal import Principal

MANAGEMENT = "/api/v1/"


async def signed_in(request: Request, sessions: Sessions, *, has_credential: bool) -> Principal | None:
    """Who is signed in by the cookie of `request`; None when it has none, or asks for what cookies do not open.

    Cookies open the management API alone: model calls, OAuth and everything that pages of others may call take
    credentials that no browser sends by itself. Raises LingpaiError: `ambiguous_credentials` with `has_credential`,
    `session_ended`, `csrf_refused`, `rate_limit_exceeded`.
    """
    token = session_cookie(request) if request.scope["path"].startswith(MANAGEMENT) else None
    if token is None:
        return None
    if has_credential:
        raise LingpaiError(
            "ambiguous_credentials",
            "The request carries a session cookie and another credential. Send one of them.",
        )
    address = request.client.host if request.client else ""
    caller = await sessions.caller_of(token, address)
    if caller is None:
        raise LingpaiError(
            "session_ended", "Your session has ended. Sign in again.", headers=cookie_that_clears(request)
        )
    request.state.caller = caller  # refusals from here on are recorded as theirs
    check_page(request, token)
    return caller
