"""A backend that costs next to nothing, as a process of its own: `python -m tests.fakes.fast_upstream`.

It prints its port and then serves for ever. A plain call is answered at once, with as many bytes as were sent. A stream
gets its events in pieces, one per turn of a clock; a stream for the user `LEAVER` gets one and is then left open until
the caller has gone.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import uvloop

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = "fast/chat"
LEAVER: Final = "leaver"
TURN_S: Final = 0.001
SHORTEST_ANSWER: Final = 500
"""What the head and the frame of an answer take; a body with less text than that gets no less."""
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
MODELS: Final = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "test"}],
}


def _whole_answer(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@cache
def _completion(size: int) -> bytes:
    message = {"role": "assistant", "content": "x" * max(50, size - SHORTEST_ANSWER)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    fields = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return _whole_answer({**fields, "choices": choices, "usage": USAGE})


def _event(choices: list[Any], **more: Any) -> bytes:
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return _chunk(json.dumps({**fields, "choices": choices, **more}, separators=(",", ":")).encode())


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WORD: Final = _event([{"index": 0, "delta": {"content": " word"}, "finish_reason": None}])
_END: Final = _event([{"index": 0, "delta": {}, "finish_reason": "stop"}]) + _event([], usage=USAGE)
FIRST_PIECE: Final = _HEAD + _WORD
PIECES: Final = (_WORD * 2, _WORD, _END + _chunk(b"[DONE]") + b"0\r\n\r\n")
_LEAVER_MARK: Final = LEAVER.encode()
_STREAM_MARKS: Final = (b'"stream":true', b'"stream": true')


class _Connection(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, streams: "_Streams") -> None:
        self._streams = streams
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        request = self._received + data if self._received else data
        head, separator, body = request.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            self._received = request
            return
        self._received = b""
        if head.startswith(b"GET "):
            self.transport.write(_whole_answer(MODELS))
        elif any(mark in body[:2000] for mark in _STREAM_MARKS):
            self.transport.write(FIRST_PIECE)
            if _LEAVER_MARK not in body:
                self._streams.add(self)
        else:
            self.transport.write(_completion(len(body)))


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class _Streams:
    """The streams under way, by how many pieces they still lack."""

    def __init__(self) -> None:
        self._waiting: list[list[_Connection]] = [[] for _ in PIECES]

    def add(self, connection: _Connection) -> None:
        self._waiting[0].append(connection)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            due = self._waiting
            self._waiting = [[], *due[:-1]]
            for piece, connections in zip(PIECES, due, strict=True):
                for connection in connections:
                    connection.transport.write(piece)


async def _serve() -> None:
    loop, streams = asyncio.get_running_loop(), _Streams()
    server = await loop.create_server(lambda: _Connection(streams), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await streams.run()


@dataclass(frozen=True)
class FastUpstream:
    """Such a process: its id, and the address of its API."""

    pid: int
    url: str


@contextmanager
def fast_upstream() -> Iterator[FastUpstream]:
    """Run one; it ends with the block."""
    command = [sys.executable, "-m", "tests.fakes.fast_upstream"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield FastUpstream(process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
        finally:
            process.kill()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
