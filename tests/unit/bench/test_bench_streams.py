"""The streaming backend and its callers agree on what a complete stream is."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from bench.stream_caller import StreamCaller, Tally, open_streams
from bench.stream_upstream import END, EVENT, HEAD, Backend, Streams

Talk = Callable[[int, Tally], Awaitable[None]]


def against_backend(talk: Talk, *, events: int) -> Tally:
    """Run `talk` against a backend whose streams have so many events."""

    async def run() -> Tally:
        loop = asyncio.get_running_loop()
        streams = Streams(steps=1, events=events)
        server = await loop.create_server(lambda: Backend(streams), "127.0.0.1", 0)
        sending = asyncio.create_task(streams.run())
        tally = Tally()
        await talk(server.sockets[0].getsockname()[1], tally)
        sending.cancel()
        server.close()
        return tally

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_complete_streams_are_counted_and_asked_for_again() -> None:
    async def talk(port: int, tally: Tally) -> None:
        callers = await open_streams(4, port, tally, key="k", events=3)
        await until(lambda: tally.finished >= 8)
        for caller in callers:
            caller.close()

    tally = against_backend(talk, events=3)

    assert not tally.errors
    assert tally.events >= 8 * 3


def test_a_stream_with_too_few_events_is_an_error() -> None:
    async def talk(port: int, tally: Tally) -> None:
        await open_streams(1, port, tally, key="k", events=5)
        await until(lambda: bool(tally.errors))

    tally = against_backend(talk, events=3)

    assert tally.errors == {"ended after 3 events": 1}
    assert tally.finished == 0


class Wire(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True


def test_events_are_counted_however_the_bytes_are_cut() -> None:
    tally, wire = Tally(), Wire()
    caller = StreamCaller(tally, key="k", events=2)
    caller.connection_made(wire)

    for byte in HEAD + EVENT + EVENT + END:
        caller.data_received(bytes([byte]))

    assert not tally.errors
    assert (tally.finished, tally.events) == (1, 2)
    assert len(wire.written) == 2, "it asks for the next stream"


def test_an_answer_other_than_200_is_an_error() -> None:
    tally, wire = Tally(), Wire()
    caller = StreamCaller(tally, key="k", events=2)
    caller.connection_made(wire)

    caller.data_received(b"HTTP/1.1 429 Too Many Requests\r\n")

    assert tally.errors == {"answered with HTTP/1.1 429 ": 1}
    assert wire.is_aborted
