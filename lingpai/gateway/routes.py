"""Model calls in the OpenAPI document, and `GET /v1/key`.

The model calls themselves are answered in the lane and never come here; the routes below describe them, make a wrong
method a 405, and keep one document for everything that is served.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from lingpai.errors import LingpaiError
from lingpai.gateway.call_schemas import (
    FILE_ANSWERS,
    STREAMED_ANSWER,
    STREAMING,
    SUMMARIES,
    path_parameters,
    request_body,
)
from lingpai.gateway.endpoint import Endpoint
from lingpai.gateway.endpoints import ENDPOINTS, OTHER_PATHS
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.periods import iso_utc


def documented_calls() -> APIRouter:
    """One route per model call, for the document."""
    router = APIRouter(tags=["model calls"], responses=ERROR_RESPONSES)
    for endpoint in ENDPOINTS:
        _document(router, endpoint, endpoint.path)
    for path, endpoint in OTHER_PATHS.items():
        _document(router, endpoint, path)
    return router


def _document(router: APIRouter, endpoint: Endpoint, path: str) -> None:
    path = path.replace("{model}", "{model:path}")
    extra: dict[str, Any] = {"requestBody": request_body(endpoint), "parameters": path_parameters(endpoint)}
    answers_json = True
    if endpoint.name in FILE_ANSWERS:
        extra["responses"] = {"200": FILE_ANSWERS[endpoint.name]}
        answers_json = "application/json" in FILE_ANSWERS[endpoint.name]["content"]
    elif endpoint.name in STREAMING:
        extra["responses"] = {"200": STREAMED_ANSWER}

    @router.post(
        path,
        summary=SUMMARIES[endpoint.name],
        openapi_extra=extra,
        name=endpoint.name,
        response_class=JSONResponse if answers_json else Response,
    )
    async def answered_in_the_lane(_: Annotated[Principal, require("model:inference")]) -> Any:
        # The lane takes every address that the router could, so this is for a spelling nobody has thought of.
        raise LingpaiError("not_found", "Write the address as the documentation does: `GET /openapi.json`.")


def key_routes(describe: Callable[[tuple[Any, ...], float], Any], clock: Callable[[], float]) -> APIRouter:
    """`GET /v1/key`: what this key or access token may do, what is left, when it resets."""
    router = APIRouter(tags=["keys"], responses=ERROR_RESPONSES)

    @router.get("/v1/key", summary="What this key or access token may do and what is left of its limits")
    async def show_key(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        account = caller.account
        body = {
            "object": "key" if caller.token_id is None else "access_token",
            "id": caller.credential_id,
            "name": caller.key_name or caller.client_name,
            **({} if caller.token_id is None else {"client": caller.client_id}),
            "user": caller.user_name,
            "scopes": sorted(caller.scopes),
            "models": list(caller.models),
            "allowed_ips": [str(network) for network in caller.allowed_ips],
            "expires_at": _iso(caller.expires_at),
            "created_at": _iso(caller.created_at),
            "limits": describe(account.meters, clock()),
        }
        return JSONResponse(body, headers={"cache-control": "no-store"})

    return router


def _iso(time: float | None) -> str | None:
    return None if not time else iso_utc(time)
