"""Callers of streams: many connections in one process, each counting what it gets."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from bench.nginx import Listening
from bench.payloads import STREAM_BODY, post
from bench.processes import free_port, running, wait_for_answer
from bench.run import Run

CONNECT_AT_ONCE: Final = 100

_OK: Final = b"HTTP/1.1 200 "
_EVENT_MARK: Final = b'"delta"'
_DONE_MARK: Final = b"data: [DONE]"
_END_MARK: Final = b"\r\n0\r\n\r\n"
_LONGEST_MARK: Final = max(len(_EVENT_MARK), len(_DONE_MARK), len(_END_MARK))


@dataclass(slots=True)
class Tally:
    """What all callers together got. `errors` counts by kind."""

    events: int = 0
    finished: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class StreamCaller(asyncio.Protocol):
    """Asks for a stream, checks it, and asks for the next one on the same connection.

    A stream must have `events` events and end with [DONE]; with 0 it must not end at all.
    """

    def __init__(self, tally: Tally, *, key: str, events: int) -> None:
        self._tally = tally
        self._request = post(STREAM_BODY, key=key)
        self._events = events
        self._is_over = False
        self._start = b""
        self._is_done = False
        self._got = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def data_received(self, data: bytes) -> None:
        if len(self._start) < len(_OK):
            self._start += data[: len(_OK) - len(self._start)]
            if not _OK.startswith(self._start):
                self._fail(f"answered with {self._start.decode(errors='replace')}")
                return
        self._count(data)
        if self._tail.endswith(_END_MARK):
            self._check_end()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._tally.errors["connection lost"] += 1

    def close(self) -> None:
        """Leave, in the middle of the stream."""
        self._is_over = True
        self._transport.abort()

    def _ask(self) -> None:
        self._start = b""
        self._is_done = False
        self._got = 0
        self._tail = b""
        self._transport.write(self._request)

    def _count(self, data: bytes) -> None:
        tail = self._tail
        seen = tail + data
        # A mark may be cut in two, so the end of what came before is looked at again; a whole one in it was counted.
        news = seen.count(_EVENT_MARK) - tail.count(_EVENT_MARK)
        self._got += news
        self._tally.events += news
        self._is_done = self._is_done or _DONE_MARK in seen
        self._tail = seen[-_LONGEST_MARK:]

    def _check_end(self) -> None:
        if not self._is_done or self._got != self._events:
            self._fail(f"ended after {self._got} events" + ("" if self._is_done else " without [DONE]"))
            return
        self._tally.finished += 1
        self._ask()

    def _fail(self, kind: str) -> None:
        self._tally.errors[kind] += 1
        self.close()


@contextmanager
def stream_upstream(run: Run, *, interval_ms: int, events: int) -> Iterator[Listening]:
    """The streaming backend, on the load's processor."""
    port = free_port()
    log = run.new_folder("stream-upstream") / "stream-upstream.log"
    command = (sys.executable, "-m", "bench.stream_upstream", str(port))
    options = ("--interval-ms", str(interval_ms), "--events", str(events))
    root = Path(__file__).parents[1]
    with running(*command, *options, cpu=run.cpus.load, log=log, folder=root) as process:
        wait_for_answer(process, port, "/v1/models")
        yield Listening(process, port)


async def open_streams(
    count: int, port: int, tally: Tally, *, key: str, events: int, sources: Sequence[str] = ("127.0.0.1",)
) -> list[StreamCaller]:
    """Open `count` streams to `port`, from the addresses `sources` in turn. What fails is in `tally`."""
    loop = asyncio.get_running_loop()
    callers = []

    async def open_one(number: int) -> None:
        caller = StreamCaller(tally, key=key, events=events)
        source = (sources[number % len(sources)], 0)
        try:
            await loop.create_connection(lambda: caller, "127.0.0.1", port, local_addr=source)
        except OSError as error:
            tally.errors[f"cannot connect: {error}"] += 1
        else:
            callers.append(caller)

    for first in range(0, count, CONNECT_AT_ONCE):
        await asyncio.gather(*map(open_one, range(first, min(first + CONNECT_AT_ONCE, count))))
    return callers
