"""Callers who leave: the backend hears of it at once, and the record says what they used until then."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.e2e import bookkeeping
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk, usage_chunk

CHAT = "/v1/chat/completions"
MODEL = "fake/chat"
LIMITS = ["100000 tokens/month", "1000/month", "5 concurrent"]
WITHIN_S = 0.1
"""How soon the engine must see that a caller has left."""
VISITS = 10
SPARE = 1
ROUNDS = 4
"""How many leave in a round, how many of them may be seen late, and how many rounds there are at most. The test, its
engine and the server share two cores with whatever else runs there, so a close may be seen late because nobody let the
engine look. A server that is slow itself is late in every round.
"""

# Five words of at most seven letters and three signs are 8 tokens, and the message around them is 3.
PROMPT = "Hello, leaver-canary says bye."
WORDS = 5


class Caller(RawConnection):
    """A connection that can also end one of its directions only."""

    def half_close(self) -> None:
        """Send no more, and go on reading: what a program does that has given up, or a proxy before it closes."""
        self._socket.shutdown(socket.SHUT_WR)


def by_close(connection: Caller) -> None:
    connection.close()


def by_reset(connection: Caller) -> None:
    connection.reset()


def by_half_close(connection: Caller) -> None:
    connection.half_close()


Leave = Callable[[Caller], None]
WAYS = [by_close, by_reset, by_half_close]


@dataclass
class Visit:
    """A call whose caller left: when (monotonic seconds), and the call as the engine saw it."""

    left_at: float
    call: EngineCall

    @property
    def seen_after_s(self) -> float:
        """How long the engine took to see it, in seconds."""
        deadline = time.monotonic() + 5
        while self.call.gone_at is None:
            assert time.monotonic() < deadline, "the engine was never told"
            time.sleep(0.002)
        return self.call.gone_at - self.left_at

    @property
    def request_id(self) -> str:
        return self.call.headers["x-request-id"]


def assert_seen_in_time(visit: Callable[[], Visit]) -> Visit:
    """Leave in rounds until all of one, but for the spare ones, are seen in time; the last visit."""
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        visits = [visit() for _ in range(VISITS)]
        rounds.append(sorted(each.seen_after_s for each in visits))
        if rounds[-1][-1 - SPARE] <= WITHIN_S:
            return visits[-1]
    raise AssertionError(f"too many were seen late in every round: {rounds}")


class Streams:
    """An engine's script that streams `WORDS` words and then says nothing more, and what to do with such a stream."""

    def __init__(
        self, engine: FakeEngine, server: LingpaiServer, key: str, *, usage: dict | None = None
    ) -> None:
        self._engine = engine
        self._server = server
        self._key = key
        self._usage = usage
        self._script = engine.script(self._stream)

    async def _stream(self, call: EngineCall) -> None:
        await call.stream_head()
        for _ in range(WORDS):
            event = chunk(call.json, {"content": " word"})
            await call.event(event if self._usage is None else {**event, "usage": self._usage})
        await call.wait_gone(5)

    def visit(self, leave: Leave) -> Visit:
        """Read all the words, then leave."""
        with Caller(self._server.port) as connection:
            body = chat(PROMPT, stream=True, script=self._script)
            connection.send(post_bytes(CHAT, body, key=self._key))
            connection.read_head()
            for _ in range(WORDS):
                connection.read_until(b" word")
            left_at = time.monotonic()
            leave(connection)
            visit = Visit(left_at, self._engine.calls_of(self._script)[-1])
            assert visit.seen_after_s >= 0  # a half-closed connection must not be closed before
        return visit


def assert_counted(server: LingpaiServer, name: str, key: str) -> None:
    """The limits of the key count what its records say, and hold nothing any more."""
    bookkeeping.wait_until_free(server, name, MODEL)
    bookkeeping.check_counters(server, {name: key}, MODEL, server.records())


@pytest.mark.parametrize("leave", WAYS)
def test_engine_sees_within_100_ms_that_a_caller_left_a_stream(relay, engine, key_name, leave):
    """The record has the prompt and what was handed on until then, charges it, and says client_gone."""
    key = relay.make_key(key_name, limits=LIMITS)
    streams = Streams(engine, relay, key)

    last = assert_seen_in_time(lambda: streams.visit(leave))

    record = relay.record_of(last.request_id)
    assert (record["end_reason"], record["status"], record["charged"]) == ("client_gone", 200, 1)
    assert (record["counted"], record["prompt_tokens"], record["completion_tokens"]) == (
        "estimated",
        11,
        WORDS,
    )
    assert record["charged_tokens"] == 11 + WORDS
    assert record["first_byte_ms"] is not None
    assert_counted(relay, key_name, key)


def test_usage_that_the_engine_has_reported_by_then_is_believed(relay, engine, key_name):
    """An engine that says with every event what was used is asked no further."""
    key = relay.make_key(key_name, limits=LIMITS)
    usage = {"prompt_tokens": 21, "completion_tokens": 42, "total_tokens": 63}

    visit = Streams(engine, relay, key, usage=usage).visit(by_close)

    record = relay.record_of(visit.request_id)
    assert (record["end_reason"], record["counted"]) == ("client_gone", "reported")
    assert (record["prompt_tokens"], record["completion_tokens"], record["charged_tokens"]) == (21, 42, 63)
    assert_counted(relay, key_name, key)


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_engine_sees_within_100_ms_that_a_caller_left_before_the_first_byte(
    relay, engine, key_name, leave, stream
):
    """The engine was at work, so the prompt is charged; there was no answer."""
    key = relay.make_key(key_name, limits=LIMITS)

    async def thinks(call: EngineCall) -> None:
        await call.wait_gone(5)

    script = engine.script(thinks)

    def visit() -> Visit:
        count = len(engine.calls_of(script))
        with Caller(relay.port) as connection:
            connection.send(post_bytes(CHAT, chat(PROMPT, stream=stream, script=script), key=key))
            while len(engine.calls_of(script)) == count:
                time.sleep(0.002)
            left_at = time.monotonic()
            leave(connection)
            visit = Visit(left_at, engine.calls_of(script)[-1])
            assert visit.seen_after_s >= 0
        return visit

    last = assert_seen_in_time(visit)

    record = relay.record_of(last.request_id)
    assert (record["end_reason"], record["charged"], record["first_byte_ms"]) == ("client_gone", 1, None)
    assert (record["prompt_tokens"], record["completion_tokens"], record["charged_tokens"]) == (11, 0, 11)
    assert_counted(relay, key_name, key)


@pytest.mark.parametrize("leave", WAYS)
def test_caller_who_leaves_the_queue_is_charged_nothing(relay, engine, key_name, leave):
    """Who waits for a limit and leaves has used nothing, the engine never hears of them, and the next in line goes on."""
    key = relay.make_key(key_name, limits=["1 concurrent wait 20s", "100000 tokens/month"])
    may_end = threading.Event()
    began = threading.Event()

    async def holds(call: EngineCall) -> None:
        began.set()
        while not may_end.is_set():
            await asyncio.sleep(0.005)
        await call.answer({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    held, never = engine.script(holds), engine.script(holds)
    with RawConnection(relay.port) as first, Caller(relay.port) as waiting:
        first.send(post_bytes(CHAT, chat(PROMPT, script=held), key=key))
        assert began.wait(5)
        waiting.send(post_bytes(CHAT, chat(PROMPT, script=never), key=key))
        wait_for_queue(relay, 1)
        time.sleep(0.02)  # the server's clock goes by milliseconds
        leave(waiting)
        wait_for_queue(relay, 0)
        may_end.set()
        answer = first.read_answer()

    records = relay.records("key_id = ? ORDER BY id", relay.admin("GET", f"/api/v1/keys/{key_name}")["id"])
    gone, served = records
    assert answer.status == 200
    assert engine.calls_of(never) == []
    assert (gone["end_reason"], gone["charged"], gone["charged_tokens"]) == ("client_gone", 0, 0)
    assert (gone["prompt_tokens"], gone["completion_tokens"], gone["counted"]) == (0, 0, "none")
    assert gone["queued_ms"] > 0
    assert (served["end_reason"], served["charged_tokens"]) == ("complete", 4)
    assert_counted(relay, key_name, key)


@pytest.mark.parametrize("user", ["admin", "*"])
def test_call_whose_caller_has_left_counts_against_a_limit_that_is_set_then(make_server, engine, user):
    """The engine still tells its usage; for each user of a model this holds as well as for one."""
    server = make_server(engine.url).start()
    key = server.make_key("leaver")
    may_end = threading.Event()

    async def tells_usage_late(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": " word"}, "stop"))
        while not may_end.is_set():
            await asyncio.sleep(0.005)
        await call.event(usage_chunk(call.json))

    with Caller(server.port) as connection:
        body = chat(PROMPT, stream=True, script=engine.script(tells_usage_late))
        connection.send(post_bytes(CHAT, body, key=key))
        connection.read_until(b"stop")
        connection.close()
    time.sleep(0.1)  # for the server to see it
    fields = {"subject": "user_model", "user": user, "model": MODEL, "limits": ["9/day", "90000 tokens/day"]}
    server.admin("PUT", "/api/v1/limits", fields)

    def counted() -> list[tuple[int, bool]]:
        rows = server.admin("GET", f"/api/v1/limits/explain?key=leaver&model={MODEL}")["data"]
        return [(row["used"], row["reserved"] > 0) for row in rows if row["subject"] == "user_model"]

    [requests, tokens] = counted()
    may_end.set()
    record = next(each for _ in range(100) for each in server.records("end_reason = 'client_gone'"))

    assert (requests, tokens[1]) == ((1, False), True)
    assert counted() == [(1, False), (record["charged_tokens"], False)]


def wait_for_queue(server: LingpaiServer, size: int) -> None:
    """Wait until so many calls wait for limits."""
    deadline = time.monotonic() + 5
    while (waiting := server.metric("lingpai_waiting_calls")) != size:
        assert time.monotonic() < deadline, f"{waiting} calls wait"
        time.sleep(0.01)
