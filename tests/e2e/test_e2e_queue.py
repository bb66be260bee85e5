"""Limits with `wait`: calls stand in line instead of being refused, fairly, within bounds, and never in vain."""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.limit_world import Caller, World, assert_spaced
from tests.e2e.lingpai_server import read_records
from tests.e2e.raw_http import RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, answer_well, stream_well

CONFIG = """
[gateway]
max_waiting = 120
max_waiting_per_key = 60
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.start(tmp_path_factory.mktemp("queue"), config=CONFIG)
    yield world
    world.stop()


class Engine:
    """Takes its time for each call, and notes who came and how many were answered at once, to the last event."""

    def __init__(self, world: World, *, takes_s: float = 0.02) -> None:
        self.takes_s = takes_s
        self.busy = self.busiest = 0
        self.came: list[str] = []
        self.script = world.engines["usd"].script(self._answer)

    async def _answer(self, call: EngineCall) -> None:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        self.came.append(call.json["who"])
        await asyncio.sleep(self.takes_s)
        await (stream_well if call.json.get("stream") else answer_well)(call)
        self.busy -= 1


def together(calls: list[Any]) -> list[Any]:
    """Make all calls at the same time; what came of each."""

    def outcome(call: Any) -> Any:
        try:
            return call()
        except openai.APIStatusError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


def wait_until_waiting(world: World, count: int) -> None:
    """Until so many calls stand in line."""
    deadline = time.monotonic() + 10
    while (waiting := world.server.metric("lingpai_waiting_calls")) != count:
        assert time.monotonic() < deadline, f"{waiting} calls wait"
        time.sleep(0.01)


def records_of(caller: Caller) -> list[dict[str, Any]]:
    """The caller's records, in the order in which the calls ended."""
    key_id = caller.world.server.admin("GET", f"/api/v1/keys/{caller.key}")["id"]
    return caller.world.server.records("key_id = ? ORDER BY id", key_id)


def test_calls_over_a_rate_wait_for_their_turn(world: World):
    """Of 25 calls at once on 10/1s, ten go through at once, the others one every tenth of a second, and none is refused."""
    caller = world.caller()
    caller.limit("key", ["10/1s wait 5s"])

    started = time.monotonic()
    answers = together([caller.call] * 25)
    took = time.monotonic() - started

    records = sorted(records_of(caller), key=lambda record: record["started_at"])
    queued = [record["queued_ms"] for record in records]
    assert [type(answer).__name__ for answer in answers] == ["ChatCompletion"] * 25
    assert took >= 1.4
    assert queued[:10] == [0] * 10
    assert 0 < queued[-1] < 5000
    assert_spaced([record["started_at"] for record in records], at_once=10, per_s=10)
    assert all(record["queued_ms"] <= record["duration_ms"] for record in records)
    assert sum(record["charged"] for record in records) == 25


def test_calls_over_a_number_at_once_wait_until_others_end(world: World):
    caller, engine = world.caller(), Engine(world, takes_s=0.05)
    caller.limit("model", ["2 concurrent wait 10s"])

    answers = together([lambda: caller.call(script=engine.script, who="x")] * 12)

    assert [type(answer).__name__ for answer in answers] == ["ChatCompletion"] * 12
    assert engine.busiest == 2
    assert world.server.metric("lingpai_waiting_calls") == 0
    assert caller.used() == {"2 concurrent wait 10s": 0}


def test_tokens_that_calls_under_way_hold_are_waited_for(world: World):
    """The second call fits as soon as the first has given back what it did not use."""
    caller = world.caller()
    caller.limit("user", ["30 tokens/day wait 5s"])

    with world.held(caller):
        thread = threading.Thread(target=caller.call)
        thread.start()
        wait_until_waiting(world, 1)
    thread.join(10)

    assert caller.used() == {"30 tokens/day wait 5s": 18}
    assert [bool(record["queued_ms"]) for record in records_of(caller)] == [False, True]


def test_fifty_waiting_calls_of_one_key_do_not_keep_another_from_its_turn(world: World):
    """Keys take turns: the one call of the other key is the second to be let in after it came."""
    greedy, engine = world.caller(), Engine(world)
    modest = greedy.with_key(f"{greedy.key}-modest")
    greedy.limit("model", ["1 concurrent wait 30s"])
    with ThreadPoolExecutor(60) as threads, world.held(greedy):
        for _ in range(50):
            threads.submit(greedy.call, script=engine.script, who="greedy")
        wait_until_waiting(world, 50)
        threads.submit(modest.call, script=engine.script, who="modest")
        wait_until_waiting(world, 51)

    assert len(engine.came) == 51
    assert engine.came.index("modest") <= 1
    assert engine.busiest == 1


def test_owasp_api4_the_queue_is_bounded_and_says_so(world: World):
    """The call that finds it full is refused at once, told why, and told to come back a little later."""
    caller, engine = world.caller(), Engine(world, takes_s=0.001)
    other = caller.with_key(f"{caller.key}-other")
    caller.limit("user", ["1 concurrent wait 30s"])

    with ThreadPoolExecutor(70) as threads, world.held(caller):
        waiting = [threads.submit(caller.call, script=engine.script, who="x") for _ in range(60)]
        wait_until_waiting(world, 60)
        started = time.monotonic()
        refusal = caller.refusal()
        took = time.monotonic() - started
        from_other_key = threads.submit(other.call, script=engine.script, who="other")
        wait_until_waiting(world, 61)

    assert refusal is not None
    assert refusal.code == "rate_limit_exceeded"
    assert "as many calls as may are waiting already" in str(refusal.body)
    assert int(refusal.response.headers["retry-after"]) >= 1
    assert took < 5
    assert all(call.exception() is None for call in [*waiting, from_other_key])


def test_a_call_that_waits_in_vain_is_refused_when_its_time_is_up(world: World):
    """With the same 429 that it would have had at once, and the time that it waited."""
    caller = world.caller()
    caller.limit("key", ["1 concurrent wait 1s"])

    with world.held(caller):
        started = time.monotonic()
        refusal = caller.refusal()
        took = time.monotonic() - started

    assert refusal is not None
    assert 0.95 < took < 5
    assert re.search(r"The call waited 1\.\d s for room\.", str(refusal.body))
    refused, _ = records_of(caller)
    assert (refused["end_reason"], refused["status"], refused["charged"]) == ("refused", 429, 0)
    assert 950 < refused["queued_ms"] <= refused["duration_ms"]


def test_nobody_waits_for_what_cannot_come_in_time(world: World):
    """A day's limit that is spent is not back within five seconds, so the refusal comes at once."""
    caller = world.caller()
    caller.limit("key", ["1/day wait 5s"])
    caller.call()

    started = time.monotonic()
    refusal = caller.refusal()

    assert refusal is not None
    assert refusal.code == "insufficient_quota"
    assert "waited" not in str(refusal.body)
    assert time.monotonic() - started < 3


def test_a_limit_without_wait_refuses_although_another_one_waits(world: World):
    caller = world.caller()
    caller.limit("key", ["1 concurrent wait 30s"])
    caller.limit("user", ["1 concurrent"])

    with world.held(caller):
        started = time.monotonic()
        refusal = caller.refusal()
        took = time.monotonic() - started

    assert refusal is not None
    assert took < 5


def test_streams_wait_and_are_waited_for(world: World):
    """A stream keeps its place among the concurrent calls until its last event."""
    caller, engine = world.caller(), Engine(world)
    caller.limit("key", ["1 concurrent wait 10s"])

    def stream() -> str:
        chunks = caller.call(stream=True, script=engine.script, who="x", pause_s=0.02)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    with ThreadPoolExecutor(5) as threads:
        with world.held(caller):
            waiting = [threads.submit(stream) for _ in range(5)]
            wait_until_waiting(world, 5)
        texts = [call.result(20) for call in waiting]

    assert texts == ["Good day to you"] * 5
    assert engine.busiest == 1
    assert [record["queued_ms"] > 0 for record in records_of(caller)] == [False, *[True] * 5]


def test_a_caller_who_leaves_while_waiting_holds_nothing_up(world: World):
    """The place in line is free at once, nothing is charged, and the record says who left and how long it waited."""
    caller, engine = world.caller(), Engine(world)
    caller.limit("key", ["1 concurrent wait 30s"])
    body = chat(model=caller.model, script=engine.script, who="gone")

    with world.held(caller):
        with RawConnection(world.server.port) as leaving:
            leaving.send(post_bytes("/v1/chat/completions", body, key=caller.sdk.api_key))
            wait_until_waiting(world, 1)
        wait_until_waiting(world, 0)
    caller.call(script=engine.script, who="next")

    assert engine.came == ["next"]
    gone = next(record for record in records_of(caller) if record["end_reason"] == "client_gone")
    assert (gone["charged"], gone["charged_tokens"], gone["cost"]) == (0, 0, 0)
    assert gone["queued_ms"] > 0
    (row,) = world.server.cli_json("usage", "--key", caller.key)
    assert (row["requests"], row["refused"]) == (2, 1)


def test_a_key_that_is_disabled_while_its_call_waits_does_not_get_in(world: World):
    caller, engine = world.caller(), Engine(world)
    other = caller.with_key(f"{caller.key}-other")
    caller.limit("user", ["1 concurrent wait 30s"])

    with ThreadPoolExecutor(1) as threads:
        with world.held(caller):
            waiting = threads.submit(other.call, script=engine.script, who="disabled")
            wait_until_waiting(world, 1)
            world.server.cli("keys", "disable", other.key)
        error = waiting.exception(10)

    assert isinstance(error, openai.AuthenticationError)
    assert error.code == "key_disabled"
    assert engine.came == []


def test_a_limit_that_is_lifted_lets_those_in_who_wait_for_it(world: World):
    """Nobody has to wait for the old limit's sake."""
    caller, engine = world.caller(), Engine(world)
    caller.limit("key", ["1 concurrent wait 30s"])

    with ThreadPoolExecutor(3) as threads, world.held(caller):
        waiting = [threads.submit(caller.call, script=engine.script, who="x") for _ in range(3)]
        wait_until_waiting(world, 3)
        caller.limit("key", ["none"])
        answers = [call.result(10) for call in waiting]

    assert len(answers) == 3


def test_a_stop_does_not_leave_those_who_wait_without_an_answer(tmp_path: Path):
    """They get in as long as the server drains, else a 503; each has one record."""
    config = f"{CONFIG}\n[server]\nstop_timeout_s = 1\n"
    world = World.start(tmp_path, config=config)
    try:
        caller = world.caller()
        caller.limit("key", ["1 concurrent wait 30s"])
        with ThreadPoolExecutor(2) as threads, world.held(caller):
            waiting = [threads.submit(caller.call) for _ in range(2)]
            wait_until_waiting(world, 2)
            assert world.server.process is not None
            world.server.process.send_signal(signal.SIGTERM)
            errors = [call.exception(15) for call in waiting]
        world.server.process.wait(20)
        assert [getattr(error, "code", None) for error in errors] == ["shutting_down"] * 2
        ends = [record["end_reason"] for record in read_records(world.server.data)]
        assert len(ends) == 3
        assert set(ends) <= {"stopped", "refused"}
    finally:
        world.stop()
