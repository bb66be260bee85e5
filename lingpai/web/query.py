"""Which query parameters a route of the management API takes: those that it declares, each once.

A filter that is misspelt would otherwise be no filter: a list shows everything, and a call that ends something ends more
than was meant. Bodies are as strict (their models forbid unknown fields).
"""

from collections import Counter
from collections.abc import Callable, Set
from typing import Any, Final, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from starlette.requests import Request

from lingpai.errors import LingpaiError, did_you_mean

STRICT_BELOW: Final = "/api/v1/"

_ANY_QUERY: Final = "__lingpai_any_query_because__"
_LONGEST_NAME: Final = 64
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def any_query(reason: str) -> Callable[[_Endpoint], _Endpoint]:
    """Marks an endpoint that ignores query parameters it does not know, and says why. Stands below the route decorator."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _ANY_QUERY, reason)
        return endpoint

    return mark


def check_query(request: Request) -> None:
    """Refuse a parameter that the route of `request` does not declare, and a second value of one.

    Raises LingpaiError (invalid_request), which names the parameter. Says nothing outside of the management API.
    """
    route = request.scope.get("route")
    if not request.scope["query_string"] or not request.url.path.startswith(STRICT_BELOW):
        return
    if getattr(getattr(route, "endpoint", None), _ANY_QUERY, None) is not None:
        return
    declared = _declared(route.dependant) if route is not None else set()
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in declared:
            raise _unknown(name, declared)
        if times > 1:  # no parameter here takes several values
            raise LingpaiError("invalid_request", f"`{name}` is there {times} times. Send it once.", name)


def _declared(dependant: Dependant) -> Set[str]:
    return {field.alias for field in get_flat_params(dependant) if isinstance(field.field_info, Query)}


def _unknown(name: str, declared: Set[str]) -> LingpaiError:
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    known = ", ".join(f"`{each}`" for each in sorted(declared))
    hint = did_you_mean(shown, declared) or (f" There are {known}." if known else " There are none.")
    return LingpaiError("invalid_request", f"There is no query parameter `{shown}` here.{hint}", shown)
