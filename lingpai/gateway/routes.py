"""Model calls in the OpenAPI document, and `GET /v1/key`.

The model calls themselves are answered in the lane and never come here; the routes below describe them, make a wrong
method a 405, and keep one document for everything that is served.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from lingpai.errors import LingpaiError
from lingpai.gateway.endpoint import Endpoint
from lingpai.gateway.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, GENERATE, INFERENCE, PREDICT
from lingpai.gateway.media import IMAGES, RERANK, SPEECH, TRANSCRIPTIONS
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.periods import iso_utc

_MESSAGES = [{"role": "user", "content": "Hello"}]
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    CHAT.name: ("Chat", {"model": "lingpai/eliza", "messages": _MESSAGES, "stream": False}),
    COMPLETIONS.name: ("Complete a text", {"model": "lingpai/eliza", "prompt": "Hello", "max_tokens": 64}),
    EMBEDDINGS.name: ("Embed texts", {"model": "lingpai/hashing-embedding", "input": ["Hello", "你好"]}),
    RERANK.name: (
        "Put documents in order",
        {"model": "acme/reranker", "query": "a pet", "documents": ["a car", "a cat"], "top_n": 1},
    ),
    TRANSCRIPTIONS.name: (
        "Write down what is said",
        {"model": "acme/speech", "file": "data:audio/wav;base64,…", "response_format": "json"},
    ),
    SPEECH.name: ("Speak a text", {"model": "acme/voice", "input": "Hello", "voice": "one"}),
    IMAGES.name: ("Make pictures", {"model": "acme/painter", "prompt": "a cat", "n": 1, "size": "512x512"}),
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
    summary, _ = _EXAMPLES[endpoint.name]
    path = endpoint.path.replace("{model}", "{model:path}")
    extra: dict[str, Any] = {"requestBody": _body(endpoint)}
    if endpoint.may_answer_files:
        extra["responses"] = {"200": _FILE_ANSWER}

    @router.post(path, summary=summary, openapi_extra=extra, name=endpoint.name)
    async def answered_in_the_lane(_: Annotated[Principal, require("model:inference")]) -> dict[str, Any]:
        # The lane takes every address that the router could, so this is for a spelling nobody has thought of.
        raise LingpaiError("not_found", "Write the address as the documentation does: `GET /openapi.json`.")


_FILE_ANSWER: Final = {
    "description": "Sound, text or JSON, as `response_format` says.",
    "content": {"application/json": {}, "audio/*": {}, "text/plain": {}},
}


def _body(endpoint: Endpoint) -> dict[str, Any]:
    """The request body: JSON, and where files are taken also a form."""
    _, example = _EXAMPLES[endpoint.name]
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}, "example": example}}
    if endpoint.read_form is not None:
        file = {"type": "string", "format": "binary"}
        properties = {"file": file, **{name: {"type": "string"} for name in ("model", "parameters")}}
        content["multipart/form-data"] = {
            "schema": {"type": "object", "properties": properties, "required": ["file"]}
        }
    return {"required": True, "content": content}


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
    return None if not time else iso_utc(time)
