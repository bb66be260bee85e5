"""Telling of requests that met a rule, so that they can be recorded: the application sets ``app.state.on_refusal``.

Whoever authenticates a request sets ``request.state.caller`` as soon as it is known, before any rule is asked.
"""

from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.storage.trail import POLICY_CODES, PolicyRefusal
from lingpai.telemetry.logs import current_request
from lingpai.web.origin import Origin, current_origin

OnRefusal = Callable[[PolicyRefusal], None]

_NOWHERE: Final = Origin(kind="network")


def report_refusal(request: Request, error: LingpaiError, *, path: str | None = None) -> None:
    """Tell of `error`, if it is a refusal by policy. `path` is the route's pattern where routing has not come to it yet.

    Of what was not found only what somebody looked for who does not see everything: whether it is another's or nobody's
    is not asked, for the time that takes would tell the caller.
    """
    if error.code not in POLICY_CODES:
        return
    caller: Principal | None = getattr(request.state, "caller", None)
    if error.code == "not_found" and (caller is None or caller.is_admin):
        return
    references = (str(value) for value in request.path_params.values())
    tell_refusal(request, error.code, caller, path=path, reference=" ".join(references))


def tell_refusal(
    request: Request,
    code: str,
    caller: Principal | None,
    *,
    path: str | None = None,
    reference: str = "",
    detail: str = "",
) -> None:
    """Tell that `request` was refused; the rest as in `PolicyRefusal`."""
    app = request.scope.get("app")
    on_refusal: OnRefusal | None = None if app is None else getattr(app.state, "on_refusal", None)
    if on_refusal is None:
        return
    origin = current_origin.get() or _NOWHERE
    pattern = path or getattr(request.scope.get("route"), "path", "(no route)")
    on_refusal(
        PolicyRefusal(
            caller=caller,
            code=code,
            target_kind="route",
            target_id=f"{request.method} {pattern}",
            reference=reference,
            detail=detail,
            address=origin.address,
            user_agent=origin.user_agent,
            request_id=current_request.get() or None,
        )
    )
