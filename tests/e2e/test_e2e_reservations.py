"""Limits of every unit at once, under callers that leave and a backend that fails: never over, and nothing left behind."""

import asyncio
import contextlib
import json
import random
import sqlite3
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.bookkeeping import amount_of, limits_of, wait_until_free
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import read_unary
from tests.e2e.raw_http import chat, get, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk, completion

CALLERS = 200
CALLS_EACH = 12
CONCURRENT = 90
AT_ONCE_ON_THE_MODEL = 40
MODEL = "fake/chat"
PRICES = {"input": "2.5", "output": "10", "currency": "USD"}

CONFIG = """
[gateway]
first_byte_timeout_s = 0.5
idle_timeout_s = 0.5

[[models]]
target = "{engine}"
name = "engine"

[models.prices."fake/chat"]
input = "2.5"
output = "10"
currency = "USD"
"""


@dataclass
class MoodyEngine:
    """Answers, streams, fails, hangs and breaks off at random, but never gives more tokens than it was allowed."""

    seed: int
    busy: int = 0
    busiest: int = 0
    moods: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def __call__(self, call: EngineCall) -> None:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self._answer(call)
        finally:
            self.busy -= 1

    async def _answer(self, call: EngineCall) -> None:
        fields = call.json
        mood = self._random.choices(
            ("good", "no usage", "error", "reset", "hang", "broken"), weights=(70, 10, 6, 5, 2, 7)
        )[0]
        self.moods[mood] = self.moods.get(mood, 0) + 1
        await asyncio.sleep(self._random.random() * 0.02)
        if mood == "error":
            await call.answer({"error": {"message": "overloaded"}}, status="500 Internal Server Error")
        elif mood == "reset":
            call.close(reset=True)
        elif mood == "hang":
            await call.wait_gone(5)
            call.close()
        elif fields.get("stream"):
            await self._stream(call, fields, mood)
        else:
            await self._unary(call, fields, mood)

    async def _unary(self, call: EngineCall, fields: dict[str, Any], mood: str) -> None:
        answer = completion(fields)
        if mood == "no usage":
            del answer["usage"]
        else:
            answer["usage"] = self._usage(fields, self._words(fields))
        if mood == "broken":
            await call.head("content-type: application/json", "content-length: 5000")
            await call.send(json.dumps(answer).encode())
            call.close(reset=True)
        else:
            await call.answer(answer)

    async def _stream(self, call: EngineCall, fields: dict[str, Any], mood: str) -> None:
        words = self._words(fields)
        await call.stream_head()
        for number in range(words):
            await call.event(chunk(fields, {"content": " word"}))
            if number % 4 == 0:
                await asyncio.sleep(0.001)
            if mood == "broken" and number == words // 2:
                call.close(reset=True)
                return
        await call.event(chunk(fields, {}, "stop"))
        if mood != "no usage":
            await call.event({**chunk(fields, {}), "choices": [], "usage": self._usage(fields, words)})
        await call.event(b"[DONE]")
        await call.chunk(b"")

    def _words(self, fields: dict[str, Any]) -> int:
        return self._random.randint(1, min(40, fields["max_tokens"]))

    def _usage(self, fields: dict[str, Any], words: int) -> dict[str, int]:
        prompt = sum(len(message["content"].split()) for message in fields["messages"]) + 4
        return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


@dataclass
class Callers:
    """Two hundred callers at once; `statuses` counts what they were told, ``gone`` when they left before."""

    port: int
    keys: list[str]
    script: str
    seed: int
    statuses: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        await asyncio.gather(*(self._caller(number) for number in range(CALLERS)))

    async def _caller(self, number: int) -> None:
        dice = random.Random(self.seed + number)
        for _ in range(CALLS_EACH):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._call(dice, self.keys[number % len(self.keys)])

    async def _call(self, dice: random.Random, key: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(post_bytes("/v1/chat/completions", self._body(dice), key=key))
            if dice.random() < 0.25:
                await asyncio.sleep(dice.random() * 0.03)
                self._count("gone")
                return
            try:
                status = await asyncio.wait_for(_read_status(reader), 20)
            except TimeoutError:
                self._count("no answer")
                return
            self._count(str(status))
            if dice.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.05)  # read a little, then leave in the middle
        finally:
            writer.transport.abort()

    def _body(self, dice: random.Random) -> dict[str, Any]:
        body = chat(model=MODEL, stream=dice.random() < 0.6, script=self.script)
        body["messages"] = [{"role": "user", "content": "say something nice " * dice.randint(1, 10)}]
        if dice.random() < 0.6:
            body["max_tokens"] = dice.randint(5, 60)
        return body

    def _count(self, what: str) -> None:
        self.statuses[what] = self.statuses.get(what, 0) + 1


async def _read_status(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    return int(line.split(b" ")[1]) if line else 0


@dataclass
class Watcher:
    """Asks again and again what is used, and keeps every answer that is over a limit."""

    server: LingpaiServer
    keys: list[str]
    over: list[dict[str, Any]] = field(default_factory=list)
    looks: int = 0
    most_reserved: dict[str, float] = field(default_factory=dict)

    async def watch(self) -> None:
        while True:
            for name in self.keys:
                await asyncio.to_thread(self.look, name)
            await asyncio.sleep(0.02)

    def look(self, name: str) -> list[dict[str, Any]]:
        rows = limits_of(self.server, name, MODEL)
        self.looks += 1
        for row in rows:
            # `remaining` is never negative, so a count above the amount shows only here.
            if Decimal(str(row["used"])) > amount_of(row):
                self.over.append(row)
            reserved = float(row["reserved"])
            self.most_reserved[row["unit"]] = max(self.most_reserved.get(row["unit"], 0), reserved)
        return rows


@pytest.mark.slow
def test_sum_of_settled_and_reserved_never_exceeds_a_limit(make_server: MakeServer, engine: FakeEngine):
    """200 callers, some leaving at random moments, on a backend failing at random, under limits of every unit."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moody = MoodyEngine(seed)
    script = engine.script(moody)
    server = make_server(config=CONFIG.format(engine=engine.url)).start()
    server.admin("POST", "/api/v1/users", {"name": "ada", "limits": ["30000 tokens/day", "0.2 USD/month"]})
    names = ["batch", "app"]
    keys = [
        server.make_key("batch", user="ada", limits=["14000 tokens/day@Asia/Shanghai", "1500/day"]),
        server.make_key("app", user="ada", limits=["20000 tokens/week", f"{CONCURRENT} concurrent"]),
    ]
    limits = {"subject": "model", "id": MODEL, "limits": [f"{AT_ONCE_ON_THE_MODEL} concurrent", "1 USD/day"]}
    server.admin("PUT", "/api/v1/limits", limits)
    each_user = {
        "subject": "user_model",
        "user": "*",
        "model": MODEL,
        "limits": ["28000 tokens/day", "3000/1h"],
    }
    server.admin("PUT", "/api/v1/limits", each_user)
    callers, watcher = Callers(server.port, keys, script, seed), Watcher(server, names)

    async def play() -> None:
        watching = asyncio.create_task(watcher.watch())
        await callers.run()
        assert not watching.done(), watching.exception()
        watching.cancel()

    asyncio.run(play())

    for name in names:
        wait_until_free(server, name, MODEL)
    assert watcher.over == []
    assert watcher.looks > 20
    assert watcher.most_reserved["tokens"] > 0
    assert moody.busiest <= AT_ONCE_ON_THE_MODEL
    assert {"200", "429", "gone"} <= set(callers.statuses), callers.statuses
    assert "no answer" not in callers.statuses, callers.statuses
    assert len(moody.moods) == 6
    check_counters_equal_records(server, names)


def check_counters_equal_records(server: LingpaiServer, names: list[str]) -> None:
    """What each limit says is used is the sum of what the records of its subject say was charged."""
    server.admin("GET", "/api/v1/usage")
    ids = {name: server.admin("GET", f"/api/v1/keys/{name}")["id"] for name in names}
    for name in names:
        for row in limits_of(server, name, MODEL):
            if "/" not in row["limit"] or row["limit"].endswith(("/1h", "/1s")):
                continue
            column = {"requests": "charged", "tokens": "charged_tokens", "USD": "charged_cost"}[row["unit"]]
            where = f"key_id = '{ids[name]}'" if row["subject"] == "key" else "1"
            charged = Decimal(sum_of(server, column, where)) / (10**9 if row["unit"] == "USD" else 1)
            assert Decimal(str(row["used"])) == charged, row
    assert sum_of(server, "charged_tokens > prompt_tokens + completion_tokens", "1") == 0
    assert sum_of(server, "charged_cost > cost", "1") == 0


def sum_of(server: LingpaiServer, expression: str, where: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as database:
        (total,) = database.execute(
            f"SELECT coalesce(sum({expression}), 0) FROM usage_records WHERE {where}"
        ).fetchone()
    return int(total)


def test_caller_without_max_tokens_gets_what_is_left(make_server: MakeServer, engine: FakeEngine):
    """The backend is told how much it may write, so that the limit holds whatever it has to say."""
    seen: list[int] = []

    async def note(call: EngineCall) -> None:
        seen.append(call.json["max_tokens"])
        answer = completion(call.json)
        answer["usage"] = {
            "prompt_tokens": 10,
            "completion_tokens": call.json["max_tokens"],
            "total_tokens": 0,
        }
        await call.answer(answer)

    server = make_server(engine.url).start()
    key = server.make_key("small", limits=["1000 tokens/day"])
    request = post_bytes("/v1/chat/completions", chat(model=MODEL, script=engine.script(note)), key=key)

    async def call_until_refused() -> list[int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        statuses = [200]
        while statuses[-1] == 200 and len(statuses) < 50:
            writer.write(request)
            status, _, _ = await read_unary(reader)
            statuses.append(status)
        writer.close()
        return statuses[1:]

    statuses = asyncio.run(call_until_refused())

    (limit,) = get(server.port, "/v1/key", key=key).json["limits"]
    assert statuses[-1] == 429
    assert 0 < seen[0] < 1000
    assert sum(10 + each for each in seen) == limit["used"] <= 1000
