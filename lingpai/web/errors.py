"""Every failure in one shape: ``{"error": {"message", "type", "param", "code"}}``, as OpenAI's clients read it.

What the caller sees is in `lingpai.errors.CATALOGUE`. What the operator needs goes to the log under the request id,
which every answer carries as ``x-request-id`` (and ``request-id``, where Anthropic's clients look for it).
"""

import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lingpai.errors import LingpaiError
from lingpai.ids import new_request_id
from lingpai.telemetry.logs import current_request
from lingpai.web.origin import current_origin, origin_of
from lingpai.web.refusals import report_refusal
from lingpai.web.validation import describe_validation_error

logger = logging.getLogger("lingpai.web")

_CODE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
    431: "headers_too_large",
    503: "shutting_down",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


_EXAMPLE: Final = {
    "error": {
        "message": "There is no key `laptop`. `GET /api/v1/keys` lists yours.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }
}

# For `APIRouter(responses=...)`: documents our shape, and keeps FastAPI from documenting its own 422.
ERROR_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "The request was refused; `error.code` says why.",
        "content": {"application/json": {"example": _EXAMPLE}},
    }
}


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every failure in OpenAI's shape and put a request id on every answer."""
    app.exception_handler(LingpaiError)(_on_lingpai_error)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(OperationalError)(_on_storage_failure)
    app.add_middleware(RequestBoundary)


def error_response(error: LingpaiError) -> Response:
    """The answer for `error`."""
    headers = dict(error.headers)
    if error.status == 401:
        headers.setdefault("www-authenticate", "Bearer")  # RFC 9110 section 15.5.2: a 401 names the scheme
    return JSONResponse(error.body(), error.status, headers)


def request_id(scope: MutableMapping[str, Any]) -> str:
    """The request's id: the one in ``scope["state"]["request_id"]``, made now when nobody did before."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = new_request_id().decode()
    identifier: str = state["request_id"]
    return identifier


class RequestBoundary:
    """ASGI middleware: gives requests their id, and turns an unexpected exception into a 500 that says nothing of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, request_id(scope))
        current_request.set(
            answer.request_id
        )  # for the log; each request has a task, and so a context, of its own
        current_origin.set(origin_of(scope))  # for the audit trail
        try:
            await self._app(scope, receive, answer.send)
        except Exception:  # the outermost edge: the caller must get an answer and the operator the traceback
            logger.exception("request %s failed: %s %s", answer.request_id, scope["method"], _route_of(scope))
            if answer.has_started:
                raise  # too late for a status; the server has to break the connection
            await error_response(_internal_error(answer.request_id))(scope, receive, answer.send)


class _Answer:
    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.has_started = False
        self._began = time.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            self._add_request_id(message)
        await self._send(message)

    def _add_request_id(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        missing = {b"x-request-id", b"request-id"} - {name.lower() for name, _ in headers}
        headers += [(name, self.request_id.encode()) for name in sorted(missing)]
        if not any(name.lower() == b"cache-control" for name, _ in headers):
            headers.append(
                (b"cache-control", b"no-store")
            )  # RFC 9111 section 3.5: what is somebody's is for them alone
        headers.append((b"openai-processing-ms", b"%d" % ((time.monotonic() - self._began) * 1000)))
        message["headers"] = headers


def _route_of(scope: Scope) -> str:
    # The pattern, not the path: a path is written by the caller and may hold a credential or line breaks.
    return getattr(scope.get("route"), "path", "(no route)")


def _internal_error(request_id: str) -> LingpaiError:
    return LingpaiError(
        "internal_error",
        f"Something went wrong inside Lingpai. The operator finds the cause in the log under {request_id}.",
    )


async def _on_lingpai_error(request: Request, exc: LingpaiError) -> Response:
    report_refusal(request, exc)
    return error_response(exc)


async def _on_validation_error(request: Request, exc: RequestValidationError) -> Response:
    return error_response(describe_validation_error(exc, content_type=request.headers.get("content-type")))


async def _on_storage_failure(request: Request, exc: OperationalError) -> Response:
    """The database is locked, full or broken: not the caller's fault, and maybe over soon."""
    logger.exception("request %s failed: %s", request_id(request.scope), exc.orig)
    message = "The database cannot be used now (is the disk full, or does something lock it?). Try again; tell the operator."
    return error_response(LingpaiError("storage_unavailable", message, headers={"retry-after": "5"}))


async def _on_http_exception(request: Request, exc: HTTPException) -> Response:
    return error_response(_translate(request, exc))


def _translate(request: Request, exc: HTTPException) -> LingpaiError:
    headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
    code = _CODE_OF_STATUS.get(exc.status_code)
    if code == "not_found":
        return LingpaiError(
            code, "There is nothing at this address. `GET /openapi.json` lists what there is."
        )
    if code == "method_not_allowed":
        allowed = _allowed_methods(request) or headers.get("allow", "")
        return LingpaiError(code, f"This address answers {allowed} only.", headers={"allow": allowed})
    if code is None:
        code = "invalid_request" if exc.status_code < 500 else "internal_error"
    return LingpaiError(code, _sentence(exc), headers=headers)


def _sentence(exc: HTTPException) -> str:
    if exc.status_code == 400 and "parsing the body" in str(exc.detail):
        return "The body could not be read as JSON. Check that it is UTF-8 and not nested too deeply."
    return str(exc.detail)


def _allowed_methods(request: Request) -> str:
    # Starlette names the methods of the first route that fits the path only; RFC 9110 section 15.5.6 wants all
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= set(route.methods or ())
    return ", ".join(sorted(methods))
