"""The worker's HTTP side: one small ASGI application, no framework.

It reads a request, finds the endpoint, and watches the connection while the endpoint works: when the caller leaves,
the call is cancelled. Whatever goes wrong is answered in OpenAI's shape; tracebacks go to standard error only. What an
exception of a model's code says is left out there when it repeats what callers sent (`repeating` tells what is found),
or when there is too much to look at; what one of ours says, always.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Final

from lingpai.authoring import InputError
from lingpai.backends.engines.audio import speech, transcriptions
from lingpai.backends.engines.calls import ModelCodeError
from lingpai.backends.engines.embedding import embeddings
from lingpai.backends.engines.images import generations
from lingpai.backends.engines.inference import inference, predict
from lingpai.backends.engines.models import Models
from lingpai.backends.engines.repeating import Sent
from lingpai.backends.engines.replies import Reply, Send
from lingpai.backends.engines.requests import Request, read_request
from lingpai.backends.engines.rerank import rerank
from lingpai.backends.engines.text import chat_completions, completions
from lingpai.backends.engines.told_usage import begin_request
from lingpai.backends.engines.user_errors import authors_traceback, our_traceback
from lingpai.backends.engines.values import ResultError
from lingpai.errors import LingpaiError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Endpoint = Callable[[Request, Reply], Awaitable[None]]

ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "/v1/audio/speech": speech,
    "/v1/audio/transcriptions": transcriptions,
    "/v1/chat/completions": chat_completions,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/images/generations": generations,
    "/v1/inference": inference,
    "/v1/predict": predict,
    "/v1/rerank": rerank,
}

_REQUEST_ID: Final = re.compile(rb"[\w.-]{1,128}", re.ASCII)


class WorkerApp:
    """Serves `models`; `report` takes what the operator should know of failed calls, as text of whole lines."""

    def __init__(self, models: Models, *, report: Callable[[str], None]) -> None:
        self._models = models
        self._report_text = report

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        reply = Reply(send)
        body = await _read_body(receive)
        if body is None:
            return
        async with _CancelWhenCallerLeaves(receive, reply):
            await self._answer(scope, body, reply)

    async def _answer(self, scope: Mapping[str, Any], body: bytes, reply: Reply) -> None:
        try:
            await self._dispatch(scope, body, reply)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we were cancelled: the author's code let the cancellation of something of its own escape.
            self._report(scope, "its code was cancelled from within")
            await reply.error(_model_error())
        except LingpaiError as error:
            await reply.error(error)
        except InputError as error:
            await reply.error(LingpaiError("invalid_request", error.message, error.param))
        except ModelCodeError as error:
            self._report(scope, self._account(error, scope, body))
            await reply.error(_model_error(type(error.__cause__ or error).__name__))
        except ResultError as error:
            self._report(scope, f"it {error}")
            await reply.error(_model_error())
        except Exception as error:  # noqa: BLE001  the outermost edge: a fault of ours must not reach the caller as text
            self._report(scope, our_traceback(error))
            await reply.error(
                LingpaiError("internal_error", "The worker failed. The operator's log says how.")
            )

    async def _dispatch(self, scope: Mapping[str, Any], body: bytes, reply: Reply) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/healthz":
            await reply.json(b'{"status":"ok"}')
            return
        endpoint = ENDPOINTS.get(path)
        if endpoint is None:
            raise LingpaiError("not_found", f"A worker has nothing at {path}.")
        if method != "POST":
            raise LingpaiError("method_not_allowed", f"Use POST for {path}.", headers={"allow": "POST"})
        begin_request()
        await endpoint(read_request(body, scope["headers"], self._models), reply)

    def _account(self, error: ModelCodeError, scope: Mapping[str, Any], body: bytes) -> str:
        """What failed, without what callers sent: that is nobody's business who reads the log."""
        cause = error.__cause__ or error
        if error.is_repeated:
            return f"its batch failed, as told above: {type(cause).__name__}."
        return authors_traceback(cause, sent=self._sent(error, scope, body))

    def _sent(self, error: ModelCodeError, scope: Mapping[str, Any], body: bytes) -> Sent:
        sent = Sent(error.payloads, effort=error.effort)
        if not sent.effort.spend_on_reading(body):
            return sent  # of which nothing is looked at any more
        # Read anew, because the author's code may have changed what it was given.
        request = read_request(body, scope["headers"], self._models)
        fields = request.others({"model"})
        return replace(sent, values=[fields, error.payloads], known_names=request.model().signature.names)

    def _report(self, scope: Mapping[str, Any], what: str) -> None:
        # Not through logging, which is the author's to set up. The supervisor reads the level, and takes indented
        # lines for what continues the first one.
        text = f"ERROR call {_request_id(scope)} to {scope['path']} failed: {what}"
        self._report_text(text.rstrip().replace("\n", "\n  ") + "\n")


class _CancelWhenCallerLeaves:
    """Cancels the task inside the block when the connection closes before the answer is complete."""

    def __init__(self, receive: Receive, reply: Reply) -> None:
        self._receive = receive
        self._reply = reply
        self._caller_left = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._watch = asyncio.create_task(self._wait_for_end())

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> bool:
        self._watch.cancel()
        if not self._caller_left or self._task is None:
            return False
        self._task.uncancel()
        return isinstance(error, asyncio.CancelledError)

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._reply.is_complete and self._task is not None:
            self._caller_left = True
            self._task.cancel()


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; its size is the gateway's business. None when the caller has left before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _model_error(kind: str | None = None) -> LingpaiError:
    what = f" ({kind})" if kind else ""
    return LingpaiError(
        "model_error",
        f"The model's own code failed{what}. The operator's log has the details under the request id.",
    )


def _request_id(scope: Mapping[str, Any]) -> str:
    value = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return value.decode() if _REQUEST_ID.fullmatch(value) else "-"
