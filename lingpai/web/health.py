"""Health and metrics: is the process alive, can models be called, what are the figures?"""

import hmac
from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from lingpai.errors import LingpaiError
from lingpai.web.auth import open_route
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.transport import is_from_this_machine

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def health_routes(
    *,
    not_ready_because: Callable[[], str | None],
    metrics: Callable[[], bytes],
    metrics_token: str | None,
    is_proxy: Callable[[str], bool] = lambda _: False,
) -> APIRouter:
    """`/healthz`, `/readyz`, `/metrics`. `not_ready_because` returns None once models can be called.

    `is_proxy` tells the addresses of declared proxies.
    """
    router = APIRouter(tags=["health"], responses=ERROR_RESPONSES)

    @router.get("/healthz", summary="Is the server alive?")
    @open_route("says only that the process answers; load balancers have no key")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "server": "lingpai"}

    @router.get("/readyz", summary="Can models be called?")
    @open_route("says only yes or no; load balancers have no key")
    async def readyz() -> Response:
        reason = not_ready_because()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse(
            {"status": "not ready", "reason": reason}, status_code=503, headers={"retry-after": "1"}
        )

    @router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    @open_route("checks its own token or the loopback address: scrapers are no users")
    async def show_metrics(request: Request) -> Response:
        if not _may_read(request, metrics_token, is_proxy):
            raise LingpaiError(
                "metrics_not_allowed",
                "Metrics are for this machine only. Set `server.metrics_token` and send it as a bearer token.",
            )
        return Response(metrics(), media_type=PROMETHEUS, headers={"cache-control": "no-store"})

    return router


def _may_read(request: Request, token: str | None, is_proxy: Callable[[str], bool]) -> bool:
    if token:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    if getattr(request.state, "is_local", False):
        return True
    address = request.client.host if request.client is not None else ""
    # A page in this machine's browser comes from here too, for somebody else; and a proxy that does not say who calls
    # could be speaking for anybody.
    return "origin" not in request.headers and is_from_this_machine(request) and not is_proxy(address)
