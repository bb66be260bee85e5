"""Answers on their way out: one JSON body, or a stream of server-sent events that stays alive."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Self

from lingpai.backends.engines.values import encode
from lingpai.errors import LingpaiError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

KEEP_ALIVE_S: Final = 15.0
"""Proxies close streams that are silent for long; clients ignore comments (wire.md W21)."""

_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Reply:
    """The answer to one request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False
        self.is_complete = False

    async def json(self, body: bytes, *, status: int = 200, headers: Headers = ()) -> None:
        """The whole answer at once."""
        await self.file(body, "application/json", status=status, headers=headers)

    async def file(self, body: bytes, media_type: str, *, status: int = 200, headers: Headers = ()) -> None:
        """The whole answer at once, of any media type."""
        length = str(len(body)).encode()
        own = ((b"content-type", media_type.encode()), (b"content-length", length))
        await self._start(status, [*own, *headers])
        await self._end(body)

    async def start_events(self, headers: Headers = ()) -> None:
        """The head of a stream of events; once, before the first."""
        await self._start(200, [*_STREAM_HEADERS, *headers])

    async def events(self, data: bytes) -> None:
        """Events or comments, framed already."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self, data: bytes = b"") -> None:
        """The last events; the answer is complete."""
        await self._end(data)

    async def error(self, error: LingpaiError) -> None:
        """The error in OpenAI's shape: as the answer, or as the last event of a stream that runs (W11)."""
        printable = error.message.encode("utf-8", "backslashreplace").decode()
        body = encode(LingpaiError(error.code, printable, error.param).body())
        if not self.is_started:
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await self.json(body, status=error.status, headers=headers)
        elif not self.is_complete:
            await self.end_events(event(body))

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.is_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _end(self, body: bytes) -> None:
        self.is_complete = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class EventStream:
    """Sends events, and a comment whenever nothing was sent for `silence` seconds.

    The head goes out with the first event or comment, so that an error before it still has its own status.
    Use as a context manager; nothing is sent after it.
    """

    def __init__(self, reply: Reply, headers: Headers = (), *, silence: float = KEEP_ALIVE_S) -> None:
        self._reply = reply
        self._headers = headers
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._ping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._timer = self._loop.call_later(self._silence, self._look)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    async def send(self, data: bytes) -> None:
        """One or more framed events."""
        self._last = self._loop.time()
        if not self._reply.is_started:
            await self._reply.start_events(self._headers)
        await self._reply.events(data)

    async def end(self, data: bytes) -> None:
        """The last events."""
        if not self._reply.is_started:
            await self._reply.start_events(self._headers)
        await self._reply.end_events(data)

    def _look(self) -> None:
        quiet = self._loop.time() - self._last
        if quiet >= self._silence and not self._reply.is_complete:
            self._ping = self._loop.create_task(self.send(b": ping\n\n"))
            quiet = 0.0
        self._timer = self._loop.call_later(self._silence - quiet, self._look)


def event(data: bytes) -> bytes:
    """`data`, which holds no line break, as one server-sent event."""
    return b"data: %b\n\n" % data
