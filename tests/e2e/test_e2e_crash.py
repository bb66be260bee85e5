"""kill -9: what was answered is recorded, once, nothing is invented, and limits go on where they were."""

import asyncio
import collections
import os
import random
import signal
import time
from dataclasses import dataclass

import pytest

from tests.e2e import bookkeeping
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import Crowd, Planned, Sent, call_many
from tests.e2e.processes import children_of, is_alive
from tests.e2e.raw_http import chat, get, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk

CHAT = "/v1/chat/completions"
MODEL = "fake/chat"
ROUNDS = 20
CALLERS = 12

CONFIG = """
[gateway]
first_byte_timeout_s = 1.0

[[models]]
target = "app.py"
name = "app"

[[models]]
target = "{engine}"
name = "engine"

[models.prices."fake/chat"]
input = "2.5"
output = "10"
currency = "USD"
"""

APP = """
import lingpai as lp

@lp.model("acme/parrot", task="chat")
async def parrot(messages: list[lp.Message]):
    for word in messages[-1].text.split():
        yield word + " "
"""

# Each key meets a limit of its own unit, and all of them those of their user, project and model.
KEYS = {
    "by-requests": ["1500/month"],
    "by-tokens": ["13000 tokens/month@Asia/Shanghai"],
    "by-money": ["0.075 USD/month"],
    "by-place": ["1 concurrent", "90000 tokens/month"],
}
USER_LIMITS = ["150000 tokens/month", "1.5 USD/month", "20000/month"]
MODEL_LIMITS = ["8 concurrent", "1.2 USD/month"]
USER_MODEL_LIMITS = ["15000/month", "120000 tokens/month"]


@dataclass
class MixedLoad:
    """Plans calls of every kind at random: good ones, bad ones, and such whose callers leave."""

    engine: FakeEngine
    keys: list[str]

    def __post_init__(self) -> None:
        self._scripts = [self.engine.script(each) for each in (fails, breaks_off, says_no_usage)]

    def __call__(self, dice: random.Random) -> Planned:
        kind = dice.choices(
            ("unary", "stream", "worker", "failing", "leaves", "bad", "no key"),
            weights=(26, 24, 8, 12, 16, 9, 5),
        )[0]
        key = dice.choice(self.keys)
        if kind == "bad":
            return Planned(self._bad(dice, key), kind)
        if kind == "no key":
            request = post_bytes(CHAT, chat(), key="sk-lp-" + "x" * 61)
            return Planned(request, kind, is_recordable=False)
        body = chat(stream=kind == "stream" or dice.random() < 0.5, pause_s=0.002)
        if kind == "worker":
            body = chat(model="acme/parrot", stream=dice.random() < 0.5)
        elif kind == "failing":
            body["script"] = dice.choice(self._scripts)
        if dice.random() < 0.5:
            body["max_tokens"] = dice.randint(4, 40)
        leaves = dice.random() * 0.02 if kind == "leaves" else None
        return Planned(post_bytes(CHAT, body, key=key), kind, leaves_after_s=leaves)

    def _bad(self, dice: random.Random, key: str) -> bytes:
        bodies = [b'{"model": ', chat(model="nobody/none"), {"model": MODEL, "messages": 3}]
        return post_bytes(CHAT, dice.choice(bodies), key=key)


async def fails(call: EngineCall) -> None:
    await call.answer({"error": {"message": "overloaded"}}, status="500 Internal Server Error")


async def breaks_off(call: EngineCall) -> None:
    """In the middle of a stream, or of a body."""
    if call.json["stream"]:
        await call.stream_head()
        await call.event(chunk(call.json, {"content": "Good"}))
    else:
        await call.head("content-type: application/json", "content-length: 100")
    call.close(reset=True)


async def says_no_usage(call: EngineCall) -> None:
    fields = call.json
    if fields["stream"]:
        await call.stream_head()
        await call.event(chunk(fields, {"content": "Good"}))
        await call.event(chunk(fields, {"content": " day"}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")
    else:
        message = {"role": "assistant", "content": "Good day"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        await call.answer({"object": "chat.completion", "model": fields["model"], "choices": choices})


def play_until_kill(
    server: LingpaiServer, load: MixedLoad, dice: random.Random, number: int, children: tuple[str, ...]
) -> list[Sent]:
    """Calls until the server is killed at a random moment, and before that those of its `children`."""

    async def play() -> list[Sent]:
        loop = asyncio.get_running_loop()
        crowd = Crowd(server.port, load, net=number + 1, seed=dice.randrange(2**32))
        seconds = dice.uniform(0.05, 0.45)
        for child in children:
            loop.call_later(dice.uniform(0, seconds), kill_child, server, child)
        loop.call_later(seconds, server.process.kill)
        return await crowd.run(CALLERS)

    sent = asyncio.run(play())
    server.kill()
    return sent


def kill_child(server: LingpaiServer, which: str) -> None:
    for pid, command in children_of(server.process.pid).items():
        if which in command:
            os.kill(pid, signal.SIGKILL)


def kill_while_starting(server: LingpaiServer, dice: random.Random) -> None:
    """Kill the server in the middle of its start, maybe while it loads the journal."""
    server.launch()
    time.sleep(dice.uniform(0.2, 1.0))
    server.kill()


def used_of(server: LingpaiServer, key: str) -> int:
    (limit,) = get(server.port, "/v1/key", key=key).json["limits"]
    return limit["used"]


@pytest.mark.slow
def test_answered_means_recorded_and_nothing_is_invented_through_twenty_crashes(
    make_server: MakeServer, engine: FakeEngine, new_seed: int
):
    """Killed twenty times under mixed load: one record per answer, none without a call, and the limits know it all."""
    dice = random.Random(new_seed)
    server = make_server(config=CONFIG.format(engine=engine.url))
    (server.folder / "app.py").write_text(APP)
    keys = set_up_limits(server.start())
    load = MixedLoad(engine, list(keys.values()))
    sent: list[Sent] = []

    for number in range(ROUNDS):
        children = (("ingester",), ("engines.python",), ("ingester", "engines.python"), ())[number % 4]
        sent += play_until_kill(server, load, dice, number, children)
        if number % 5 == 4:
            kill_while_starting(server, dice)
        server.start()

        records = server.records()
        bookkeeping.check_each_call_once(records, sent)
        bookkeeping.check_counters(server, keys, MODEL, records)

    check_load_was_mixed(sent)
    for name in ("by-requests", "by-tokens", "by-money"):
        check_limit_is_exact(server, name, keys[name])
    bookkeeping.check_counters(server, keys, MODEL, server.records())


def set_up_limits(server: LingpaiServer) -> dict[str, str]:
    """A user with keys of all kinds, under limits of every unit; the keys by name."""
    server.admin("POST", "/api/v1/users", {"name": "ada", "limits": USER_LIMITS})
    server.admin("PUT", "/api/v1/limits", {"subject": "model", "id": MODEL, "limits": MODEL_LIMITS})
    each_user = {"subject": "user_model", "user": "*", "model": MODEL, "limits": USER_MODEL_LIMITS}
    server.admin("PUT", "/api/v1/limits", each_user)
    return {name: server.make_key(name, user="ada", limits=limits) for name, limits in KEYS.items()}


def check_load_was_mixed(sent: list[Sent]) -> None:
    """What was asked and what was answered had everything in it that the promise is about."""
    answered = [call for call in sent if call.is_answered]
    print(
        f"{len(sent)} calls, {len(answered)} answered:", collections.Counter(each.status for each in answered)
    )
    codes = {call.code for call in answered}
    streams = [call.end for call in answered if call.kind == "stream" and call.status == 200]

    assert len(answered) > 50 * ROUNDS / 4
    assert {call.kind for call in answered} >= {"unary", "stream", "worker", "failing", "bad", "no key"}
    assert any(end.endswith(b"data: [DONE]\n\n") for end in streams)
    assert {call.status for call in answered} >= {200, 400, 401, 404, 429, 502}
    assert "rate_limit_exceeded" in codes  # by concurrency
    assert any(not call.is_answered and call.kind == "leaves" for call in sent)
    assert any(not call.is_answered and call.kind == "stream" for call in sent)


def check_limit_is_exact(server: LingpaiServer, name: str, key: str) -> None:
    """The limit that all the runs had together lets in what is left of it, and no more."""
    (limit,) = [row for row in bookkeeping.limits_of(server, name, MODEL) if row["subject"] == "key"]
    before = len(server.records("charged > 0"))
    left = float(limit["remaining"])
    each = {"requests": 1, "tokens": 9, "USD": 0.0000525}[limit["unit"]]

    # One after the other where calls reserve what is left: at the same time they would refuse each other.
    callers = 8 if limit["unit"] == "requests" else 1
    statuses = asyncio.run(call_many(server.port, key, calls=int(left / each) + 20, callers=callers))

    (limit,) = [row for row in bookkeeping.limits_of(server, name, MODEL) if row["subject"] == "key"]
    assert 429 in statuses
    assert len(server.records("charged > 0")) - before == statuses.count(200)
    if limit["unit"] == "requests":
        assert statuses.count(200) == left


def test_journal_that_was_not_loaded_before_the_crash_counts(make_server: MakeServer, engine):
    """With an ingester that did not get to work, all calls are only in the journal: after the restart they count."""
    server = make_server(engine.url).start()
    key = server.make_key("batch", limits=["60/day"])
    (ingester,) = [pid for pid, command in children_of(server.process.pid).items() if "ingester" in command]
    os.kill(ingester, signal.SIGSTOP)
    try:
        for _ in range(40):
            assert post(server.port, CHAT, chat(), key=key).status == 200
        server.kill()
    finally:
        os.kill(ingester, signal.SIGKILL)

    server.start()

    assert used_of(server, key) == 40
    statuses = asyncio.run(call_many(server.port, key, calls=40, callers=8))
    assert collections.Counter(statuses) == {200: 20, 429: 20}


def test_smooth_rate_is_not_reset_by_a_crash(make_server: MakeServer, engine):
    """A rate that is used up is still used up right after a restart."""
    server = make_server(engine.url).start()
    key = server.make_key("slow", limits=["5/1h"])
    first = [post(server.port, CHAT, chat(), key=key).status for _ in range(5)]
    server.kill()

    server.start()

    assert first == [200] * 5
    assert post(server.port, CHAT, chat(), key=key).status == 429


def test_stopped_and_started_again_the_quota_goes_on(make_server: MakeServer, engine):
    """An orderly stop loses nothing either, and the key of the first start still works."""
    server = make_server(engine.url).start()
    key = server.key
    for _ in range(10):
        post(server.port, CHAT, chat(), key=key)
    server.stop()

    server.start()

    assert server.key == key
    assert "sk-lp-" not in server.stdout_of_this_run
    assert used_of(server, key) == 10


def test_no_process_is_left_behind_by_a_crash(make_server: MakeServer):
    """The ingester and the workers end with their server, however it ends."""
    server = make_server().start()
    children = children_of(server.process.pid)
    assert len(children) == 2, children

    server.kill()

    wait_until(lambda: not any(is_alive(pid) for pid in children))


def test_ingester_that_dies_is_restarted_and_nothing_is_lost(make_server: MakeServer, engine):
    """Killing the ingester alone costs neither calls nor records."""
    server = make_server(engine.url).start()
    key = server.make_key("batch")
    answered = []
    for number in range(40):
        if number == 20:
            (ingester,) = [
                pid for pid, command in children_of(server.process.pid).items() if "ingester" in command
            ]
            os.kill(ingester, signal.SIGKILL)
            wait_until(lambda: any("ingester" in each for each in children_of(server.process.pid).values()))
            time.sleep(0.1)
        answer = post(server.port, CHAT, chat(), key=key)
        assert answer.status == 200
        answered.append(answer.headers["x-request-id"])

    recorded = [record["request_id"] for record in server.records()]

    assert sorted(recorded) == sorted(answered)


def test_worker_that_dies_is_restarted_and_calls_meanwhile_are_told_to_wait(make_server: MakeServer):
    """A crashed worker costs 502 or 503 with Retry-After until it is back, never a wrong answer."""
    server = make_server().start()
    (worker,) = [
        pid for pid, command in children_of(server.process.pid).items() if "engines.python" in command
    ]
    body = chat(model="lingpai/eliza")
    assert post(server.port, CHAT, body, key=server.key).status == 200

    os.kill(worker, signal.SIGKILL)
    answers = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answers.append(post(server.port, CHAT, body, key=server.key))
        if answers[-1].status == 200 and len(answers) > 1:
            break
        time.sleep(0.05)

    failed = [answer for answer in answers if answer.status != 200]
    assert answers[-1].status == 200
    assert {answer.status for answer in failed} <= {502, 503}
    assert all(
        answer.error["code"] in ("backend_unavailable", "model_loading", "backend_error") for answer in failed
    )
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in failed if answer.status == 503)
