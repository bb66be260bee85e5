"""A scriptable engine that speaks OpenAI's API on a real socket, in a thread of the test process.

Without instructions it behaves as a good engine does. A call whose body (or `parameters`, which some endpoints pass
on) carries ``"script": NAME`` is answered by the coroutine that `script` registered under that name, which may send any bytes
and provoke any fault. Everything that arrives is kept in `calls`.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

MODELS = ("fake/chat", "plain-chat:8b", "hf.co/fake/Chat-GGUF:Q6_K", "fake/embed-small")
WORDS = ("Good", " day", " to", " you")


class EngineCall:
    """One request as it arrived, and the means to answer it with any bytes."""

    def __init__(
        self,
        line: str,
        headers: dict[str, str],
        body: bytes,
        *,
        connection: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.method, self.path, _ = line.split(" ")
        self.headers = headers
        self.body = body
        self.connection = connection
        self.is_open = True
        self.sent = 0
        self.gone_at: float | None = None
        self._reader = reader
        self._writer = writer

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_int=_parse_int)

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the other side does not read."""
        self._writer.write(data)
        await self._writer.drain()
        self.sent += len(data)

    async def head(self, *lines: str, status: str = "200 OK") -> None:
        await self.send(
            f"HTTP/1.1 {status}\r\n{''.join(line + chr(13) + chr(10) for line in lines)}\r\n".encode()
        )

    async def answer(self, body: Any, *lines: str, status: str = "200 OK") -> None:
        """A whole answer with its length; anything but bytes becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = (
            []
            if any(line.lower().startswith("content-type") for line in lines)
            else ["content-type: application/json"]
        )
        await self.head(*kind, *lines, f"content-length: {len(data)}", status=status)
        await self.send(data)

    async def stream_head(self) -> None:
        await self.head("content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked")

    async def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; the empty one ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: Any, *, end: bytes = b"\n") -> None:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        await self.chunk(b"data: " + text + end + end)

    async def swallow_next_request(self) -> None:
        """Wait for another request on this connection, and do nothing about it."""
        await self._reader.readuntil(b"\r\n\r\n")

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, politely or with a reset."""
        self.is_open = False
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()

    @property
    def is_gone(self) -> bool:
        """Whether the other side has closed."""
        return (
            self._reader.at_eof()
            or self._reader.exception() is not None
            or self._writer.transport.is_closing()
        )

    async def wait_gone(self, timeout: float = 10) -> bool:
        """Wait until the other side has closed; notes when."""
        deadline = time.monotonic() + timeout
        while not self.is_gone and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        self.gone_at = time.monotonic() if self.is_gone else None
        return self.is_gone


Script = Callable[[EngineCall], Awaitable[None]]


class FakeEngine:
    """The engine: starts on a free port of the loopback address and answers until it is stopped."""

    def __init__(self, *, models: tuple[str, ...] = MODELS, api_key: str | None = None) -> None:
        self.models = models
        self.api_key = api_key
        self.calls: list[EngineCall] = []
        self.port = 0
        self._scripts: dict[str, Script] = {}
        self._names = itertools.count()
        self._connections = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-engine", daemon=True)
        self._started = threading.Event()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> "FakeEngine":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def stop(self) -> None:
        """Close all connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def script(self, handler: Script) -> str:
        """Register `handler` and return the name under which a call's body asks for it."""
        name = f"{getattr(handler, '__name__', 'script')}-{next(self._names)}"
        self._scripts[name] = handler
        return name

    def calls_of(self, script: str) -> list[EngineCall]:
        """The calls that asked for this script."""
        return [call for call in list(self.calls) if script.encode() in call.body]

    # -- the socket's side

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = next(self._connections)
        try:
            while await self._answer_one(number, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer_one(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        call = EngineCall(line, headers, body, connection=number, reader=reader, writer=writer)
        self.calls.append(call)
        await self._answer(call)
        return call.is_open

    async def _answer(self, call: EngineCall) -> None:
        if self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}":
            error = {
                "message": f"Incorrect API key provided: {call.headers.get('authorization')}",
                "code": "invalid_api_key",
            }
            await call.answer({"error": error}, status="401 Unauthorized")
        elif call.method == "GET":
            await call.answer({"object": "list", "data": [_model(id_) for id_ in self.models]})
        else:
            fields = call.json
            name = fields.get("script") or fields.get("parameters", {}).get("script")
            await (self._scripts[name] if name else answer_well)(call)


# -- a good engine


async def answer_well(call: EngineCall) -> None:
    """What an OpenAI-compatible engine answers."""
    fields = call.json
    if call.path.endswith("/embeddings"):
        await call.answer(embeddings(fields))
    elif fields.get("stream"):
        await stream_well(call)
    else:
        await call.answer(completion(fields, is_chat=call.path.endswith("/chat/completions")))


def completion(fields: dict[str, Any], *, is_chat: bool = True) -> dict[str, Any]:
    text = "".join(WORDS)
    choice = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 1_700_000_000,
        "model": fields["model"],
        "choices": [{"index": 0, **choice, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
        "system_fingerprint": "fp_ünï",
    }


def chunk(fields: dict[str, Any], delta: dict[str, Any] | str, finish: str | None = None) -> dict[str, Any]:
    piece = {"text": delta} if isinstance(delta, str) else {"delta": delta}
    return {
        "id": "chatcmpl-fake",
        "object": "text_completion" if isinstance(delta, str) else "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": fields["model"],
        "choices": [{"index": 0, **piece, "finish_reason": finish}],
    }


def usage_chunk(fields: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    return {**chunk(fields, {}), "choices": [], "usage": usage}


def chunks(fields: dict[str, Any], *, is_chat: bool = True) -> Iterator[dict[str, Any]]:
    """All chunks of a good stream, the usage chunk only when it was asked for."""
    if is_chat:
        yield chunk(fields, {"role": "assistant", "content": ""})
    for word in WORDS:
        yield chunk(fields, {"content": word} if is_chat else word)
    yield chunk(fields, {} if is_chat else "", "stop")
    if (fields.get("stream_options") or {}).get("include_usage"):
        yield usage_chunk(fields)


async def stream_well(call: EngineCall) -> None:
    fields = call.json
    await call.stream_head()
    for each in chunks(fields, is_chat=call.path.endswith("/chat/completions")):
        await call.event(each)
        if fields.get("pause_s"):
            await asyncio.sleep(fields["pause_s"])
    await call.event(b"[DONE]")
    await call.chunk(b"")


def embeddings(fields: dict[str, Any]) -> dict[str, Any]:
    """Floats whatever was asked for; ``"answer_as": "base64"`` makes it base64 whatever was asked for."""
    texts = fields["input"] if isinstance(fields["input"], list) else [fields["input"]]
    vectors: list[Any] = [vector_of(str(text)) for text in texts]
    if fields.get("answer_as") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in vectors]
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": data, "model": fields["model"], "usage": usage}


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 0.5, -0.25, 1.0]


def _model(id_: str) -> dict[str, Any]:
    return {"id": id_, "object": "model", "created": 1_700_000_000, "owned_by": "fake"}


def _parse_int(text: str) -> int | str:
    """Python's own limit for the digits of a number must not make this engine fail."""
    return int(text) if len(text) < 1000 else text
