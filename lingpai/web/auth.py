"""How a route says who may call it.

A route states its scope in its signature, ``caller: Annotated[Principal, require("keys:read")]``, or says with
`open_route` why it needs none. A test walks all routes and finds those that do neither.

The application decides how a request becomes a principal: it sets ``app.state.authenticate``, an async callable that
takes the request and returns a `Principal` or raises a `LingpaiError`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi import Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.web.query import check_query

ANY: Final = "*"
"""The scope of a route that every valid key may call."""

Authenticate = Callable[[Request], Awaitable[Principal]]

_OPEN: Final = "__lingpai_open_because__"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


class ScopeRequirement(SecurityBase):
    """The dependency behind `require`: authenticates the request and checks one scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        # SecurityBase makes FastAPI describe the scheme in the OpenAPI document
        self.scheme_name = "apiKey"
        self.model = HTTPBearerModel(
            description="An API key: `Authorization: Bearer sk-lp-…`. Below `/api/v1/`, a page of this server may send the"
            " cookie of a session instead, and `x-lingpai-csrf` with everything but GET and HEAD."
        )

    async def __call__(self, request: Request) -> Principal:
        """Who is calling. Raises LingpaiError when nobody valid is, the key lacks the scope, or the query is not understood."""
        authenticate: Authenticate = request.app.state.authenticate
        try:
            caller = await authenticate(request)
        except LingpaiError as error:
            if error.status < 500:
                request.state.is_offence = True  # the front listens less to who keeps sending these
            raise
        if self.scope != ANY and self.scope not in caller.scopes:
            raise insufficient_scope(self.scope, caller)
        check_query(request)
        return caller


async def check_open_query(request: Request) -> None:
    """Dependency of all routers: does for open routes what `ScopeRequirement` does for the others, once the caller is known."""
    if open_reason(request.scope.get("route")) is not None:
        check_query(request)


def require(scope: str) -> Any:
    """Marks a parameter that receives the caller, who must hold `scope` (`ANY`: every valid key will do)."""
    return Security(ScopeRequirement(scope), scopes=[] if scope == ANY else [scope])


def open_route(reason: str) -> Callable[[_Endpoint], _Endpoint]:
    """Marks an endpoint that anybody may call, and says why. Stands below the route decorator."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _OPEN, reason)
        return endpoint

    return mark


def declared_scope(route: Any) -> str | None:
    """The scope that `route` requires (`ANY` included), or None when it requires no key.

    `route` is what ``fastapi.routing.iter_route_contexts(app.routes)`` yields, or a plain route.
    """
    requirement = scope_requirement(route)
    return None if requirement is None else requirement.scope


def scope_requirement(route: Any) -> ScopeRequirement | None:
    """What `declared_scope` finds, to be asked by others than FastAPI; None when `route` requires no key."""
    dependant = getattr(route, "dependant", None)
    pending = [dependant] if dependant is not None else []
    while pending:
        current = pending.pop()
        if isinstance(current.call, ScopeRequirement):
            return current.call
        pending.extend(current.dependencies)
    return None


def open_reason(route: Any) -> str | None:
    """Why anybody may call `route`, or None when `open_route` does not mark its endpoint."""
    reason: str | None = getattr(getattr(route, "endpoint", None), _OPEN, None)
    return reason


def insufficient_scope(scope: str, caller: Principal) -> LingpaiError:
    """What a caller hears whose key lacks `scope`."""
    held = ", ".join(f"`{name}`" for name in sorted(caller.scopes)) or "no scope at all"
    return LingpaiError(
        "insufficient_scope",
        f"This call needs the scope `{scope}`; yours has {held}. Use a key that has it, or ask an administrator for one.",
        headers={
            "www-authenticate": f'Bearer realm="lingpai", error="insufficient_scope", scope="{scope}"'
        },  # RFC 6750 section 3.1
    )
