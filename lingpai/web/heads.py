"""Who may not make a request is told so when its head is there: its body is neither read nor kept.

FastAPI reads and parses a body before it asks any dependency, whoever sends it: a megabyte of memory and tens of
milliseconds for each of those who have no key at all.
"""

from typing import NamedTuple

from fastapi.routing import iter_route_contexts
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from lingpai.errors import LingpaiError
from lingpai.web.auth import ScopeRequirement, scope_requirement
from lingpai.web.errors import error_response
from lingpai.web.refusals import report_refusal


class HeadOnly(Request):
    """A request of which the head alone may be looked at: its body is yet to come."""


class HeadsFirst:
    """ASGI middleware. Routes ask again when the body is there: much may have changed while it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and _has_body(scope):
            requirement = _requirement(scope)
            if requirement is not None:
                try:
                    await requirement.check(HeadOnly(scope))
                except LingpaiError as error:
                    report_refusal(Request(scope), error, path=requirement.path)
                    await error_response(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


class _Requirement(NamedTuple):
    """What a route requires, and its pattern."""

    check: ScopeRequirement
    path: str


def _requirement(scope: Scope) -> _Requirement | None:
    """What the route of the request requires; None where there is no such route, or it is open."""
    for route in iter_route_contexts(scope["app"].routes):
        if route.matches(scope)[0] is Match.FULL:
            requirement = scope_requirement(route)
            return None if requirement is None else _Requirement(requirement, str(route.path))
    return None
