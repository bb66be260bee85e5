"""Model calls in the OpenAPI document, and `GET /v1/key`.

The model calls themselves are answered in the lane and never come here; the routes below describe them, make a wrong
method a 405, and keep one document for everything that is served.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from lingpai.errors import LingpaiError
from lingpai.gateway.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    GENERATE,
    INFERENCE,
    PREDICT,
    Endpoint,
)
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES

_MESSAGES = [{"role": "user", "content": "Hello"}]
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    CHAT.name: ("Chat", {"model": "lingpai/eliza", "messages": _MESSAGES, "stream": False}),
    COMPLETIONS.name: ("Complete a text", {"model": "lingpai/eliza", "prompt": "Hello", "max_tokens": 64}),
    EMBEDDINGS.name: ("Embed texts", {"model": "lingpai/hashing-embedding", "input": ["Hello", "你好"]}),
    PREDICT.name: ("Call a plain function", {"input_data": "Hello"}),
    GENERATE.name: ("Generate text", {"prompt": "Hello", "max_length": 200}),
    INFERENCE.name: ("Call any model", {"input": "A lovely day", "parameters": {}}),
}


def documented_calls() -> APIRouter:
    """One route per model call, for the document."""
    router = APIRouter(tags=["model calls"], responses=ERROR_RESPONSES)
    for endpoint in ENDPOINTS:
        _document(router, endpoint)
    return router


def _document(router: APIRouter, endpoint: Endpoint) -> None:
    summary, example = _EXAMPLES[endpoint.name]
    path = endpoint.path.replace("{model}", "{model:path}")
    body = {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
    }

    @router.post(path, summary=summary, openapi_extra={"requestBody": body}, name=endpoint.name)
    async def answered_in_the_lane(_: Annotated[Principal, require("model:inference")]) -> dict[str, Any]:
        # The lane takes every address that the router could, so this is for a spelling nobody has thought of.
        raise LingpaiError("not_found", "Write the address as the documentation does: `GET /openapi.json`.")


def key_routes(describe: Callable[[tuple[Any, ...], float], Any], clock: Callable[[], float]) -> APIRouter:
    """`GET /v1/key`: what this key may do, what is left, when it resets."""
    router = APIRouter(tags=["keys"], responses=ERROR_RESPONSES)

    @router.get("/v1/key", summary="What this key may do and what is left of its limits")
    async def show_key(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        account = caller.account
        body = {
            "object": "key",
            "id": caller.key_id,
            "name": caller.key_name,
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
    return None if not time else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
