"""A backend that streams: `python -m bench.stream_upstream PORT --interval-ms 20 --events 100`.

Every stream gets an event per interval and ends after `--events` of them with usage and [DONE]; with 0 it never ends.
Streams are spread over the interval in steps of 20 ms. A process of its own, so that it has its own processor time.
"""

import argparse
import asyncio
import json
from itertools import count
from typing import Final, cast

import uvloop

from bench.payloads import MODEL, MODELS_ANSWER

STEP_S: Final = 0.02


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _event(choices: list[object], usage: dict[str, int] | None = None) -> bytes:
    event: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": choices,
    }
    if usage is not None:
        event["usage"] = usage
    return _chunk(json.dumps(event, separators=(",", ":")).encode())


EVENT: Final = _event([{"index": 0, "delta": {"content": " token"}, "finish_reason": None}])
END: Final = (
    _event([], {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120})
    + _chunk(b"[DONE]")
    + b"0\r\n\r\n"
)
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS: Final = (
    f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(MODELS_ANSWER)}\r\n\r\n{MODELS_ANSWER}"
).encode()


class Backend(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self, streams: "Streams") -> None:
        self._streams = streams
        self._received = b""
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._received = b""
        if head.startswith(b"GET "):
            self.transport.write(MODELS)
        else:
            self.sent = 0
            self.transport.write(HEAD)
            self._streams.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._streams.remove(self)


class Streams:
    """The open streams, in one set per step of the interval."""

    def __init__(self, *, steps: int, events: int) -> None:
        self._steps: list[set[Backend]] = [set() for _ in range(steps)]
        self._events = events
        self._next = count()

    def add(self, stream: Backend) -> None:
        self._steps[next(self._next) % len(self._steps)].add(stream)

    def remove(self, stream: Backend) -> None:
        for step in self._steps:
            step.discard(stream)

    async def run(self) -> None:
        """Send events, for ever, by the clock: a late step does not delay those after it."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in count():
            self._send(self._steps[number % len(self._steps)])
            due += STEP_S
            await asyncio.sleep(max(0, due - loop.time()))

    def _send(self, step: set[Backend]) -> None:
        for stream in list(step):
            if self._events and stream.sent == self._events:
                step.discard(stream)
                stream.transport.write(END)
            else:
                stream.sent += 1
                stream.transport.write(EVENT)


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def _serve(port: int, streams: Streams) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Backend(streams), "127.0.0.1", port, backlog=4096)
    await streams.run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stream_upstream")
    parser.add_argument("port", type=int)
    parser.add_argument("--interval-ms", type=int, default=20)
    parser.add_argument("--events", type=int, default=100)
    options = parser.parse_args()
    steps = max(1, round(options.interval_ms / 1000 / STEP_S))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.port, Streams(steps=steps, events=options.events)))


if __name__ == "__main__":
    main()
