"""SIGTERM under load: what can finish does, the rest is told, all of it is recorded, and the exit code is 0."""

import asyncio
import random
import signal
import time

from tests.e2e import bookkeeping
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import Crowd, Planned, Sent
from tests.e2e.raw_http import RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk

CHAT = "/v1/chat/completions"
MODEL = "fake/chat"
LIMITS = ["100000/month", "900000 tokens/month", "200 concurrent"]
STOP_TIMEOUT_S = 2
CALLERS = 24


async def endless(call: EngineCall) -> None:
    """Words until the other side has closed."""
    await call.stream_head()
    while not call.is_gone:
        await call.event(chunk(call.json, {"content": " word"}))
        await asyncio.sleep(0.02)


async def thinks(call: EngineCall) -> None:
    """No answer at all."""
    await call.wait_gone(30)


class StoppingLoad:
    """Plans unary calls, streams that end in time, some that never would, calls nobody answers, and callers who leave."""

    def __init__(self, engine: FakeEngine, key: str) -> None:
        self._key = key
        self._endless = engine.script(endless)
        self._thinks = engine.script(thinks)
        self._first = ["endless", "endless", "thinks", "thinks", "leaves", "stream"]  # none shall be missing

    def __call__(self, dice: random.Random) -> Planned:
        kinds, weights = ("unary", "stream", "endless", "thinks", "leaves"), (50, 34, 4, 2, 10)
        kind = self._first.pop() if self._first else dice.choices(kinds, weights)[0]
        body = chat(stream=kind in ("stream", "endless", "leaves"), max_tokens=50)
        if kind == "stream":
            body["pause_s"] = dice.choice([0.01, 0.1])  # 0.07 s or 0.7 s in all
        elif kind in ("endless", "thinks"):
            body["script"] = self._endless if kind == "endless" else self._thinks
        else:
            body["pause_s"] = 0.01
        leaves = dice.random() * 0.05 if kind == "leaves" else None
        return Planned(post_bytes(CHAT, body, key=self._key), kind, leaves_after_s=leaves)


def play_until_stopped(server: LingpaiServer, load: StoppingLoad, seed: int) -> tuple[list[Sent], float]:
    """Calls until the server ends by SIGTERM, sent at a random moment; how long it took from there."""
    told_at = 0.0

    async def play() -> list[Sent]:
        crowd = Crowd(server.port, load, net=1, seed=seed)

        def tell() -> None:
            nonlocal told_at
            told_at = time.monotonic()
            server.process.send_signal(signal.SIGTERM)

        asyncio.get_running_loop().call_later(random.Random(seed).uniform(0.3, 0.8), tell)
        return await crowd.run(CALLERS)

    sent = asyncio.run(play())
    assert server.process.wait(20) == 0
    return sent, time.monotonic() - told_at


def test_sigterm_under_load_ends_every_call_with_an_answer_and_a_record(
    make_server: MakeServer, engine: FakeEngine, new_seed: int
):
    """Streams that end within `server.stop_timeout_s` do so; others get a last event; no record is missing or wrong."""
    server = make_server(engine.url, config=f"[server]\nstop_timeout_s = {STOP_TIMEOUT_S}\n").start()
    key = server.make_key("batch", limits=LIMITS)

    sent, took = play_until_stopped(server, StoppingLoad(engine, key), new_seed)
    server.start()

    records = server.records()
    by_id = {each["request_id"]: each for each in records}
    begun = [call for call in sent if call.request_id and call.kind != "leaves"]
    assert took < STOP_TIMEOUT_S + 4
    assert {call.kind for call in begun} == {"unary", "stream", "endless", "thinks"}
    assert all(call.is_answered for call in begun)
    for call in begun:
        check_end(call, by_id[call.request_id])
    bookkeeping.check_each_call_once(records, sent)
    # Stopped in order, so calls whose callers left or heard nothing have their records as well.
    assert {each["end_reason"] for each in records} == {"complete", "stopped", "client_gone"}
    bookkeeping.check_counters(server, {"batch": key}, MODEL, records)


def check_end(call: Sent, record: bookkeeping.Record) -> None:
    """What a caller heard at last, and what the record says of it."""
    end = call.end or b""
    if call.kind in ("unary", "stream"):
        assert (record["end_reason"], record["status"]) == ("complete", 200), call
        assert call.kind == "unary" or end.endswith(b"data: [DONE]\n\n"), call
    elif call.kind == "endless":
        assert b'"shutting_down"' in end
        assert b"[DONE]" not in end
        assert (record["end_reason"], record["status"], record["charged"]) == ("stopped", 200, 1)
        assert record["completion_tokens"] > 5
        assert record["charged_tokens"] == record["prompt_tokens"] + record["completion_tokens"]
    else:
        assert (call.status, call.code) == (503, "shutting_down")
        assert (record["end_reason"], record["charged"], record["charged_tokens"]) == ("stopped", 0, 0)


def test_second_signal_ends_at_once(make_server: MakeServer, engine: FakeEngine):
    """Asked twice, a server waits for no stream: each gets its last event and its record now."""
    server = make_server(engine.url, config="[server]\nstop_timeout_s = 60\n").start()
    key = server.make_key("batch", limits=LIMITS)
    body = chat(stream=True, script=engine.script(endless))
    connections = [RawConnection(server.port) for _ in range(5)]
    for connection in connections:
        connection.send(post_bytes(CHAT, body, key=key))
        connection.read_until(b" word")

    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    is_waiting = server.process.poll() is None
    told_at = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    rests = [connection.read_rest() for connection in connections]
    code = server.process.wait(20)
    took = time.monotonic() - told_at

    for connection in connections:
        connection.close()
    assert is_waiting
    assert code == 0
    assert took < 10
    assert all(b'"shutting_down"' in rest and rest.endswith(b"0\r\n\r\n") for rest in rests)
    server.start()
    records = server.records()
    assert [(each["end_reason"], each["charged"]) for each in records] == [("stopped", 1)] * 5
    bookkeeping.check_counters(server, {"batch": key}, MODEL, records)
