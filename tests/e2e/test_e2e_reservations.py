"""Limits of every unit at once, under callers that leave and a backend that fails: never over, and nothing left behind.

Once where every step of the limits is looked at (`every_step`), and once on a server as it is served, where the counters
must equal the records.
"""

import asyncio
import contextlib
import json
import random
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bookkeeping import amount_of, limits_of, wait_until_free
from tests.e2e.conftest import MakeServer
from tests.e2e.limited_callers import CALLERS, EACH_USER, KEYS, MODEL, ON_MODEL, USER, Callers
from tests.e2e.lingpai_server import ROOT, LingpaiServer
from tests.e2e.load import read_unary
from tests.e2e.raw_http import chat, get, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk, completion

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
    moods: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def __call__(self, call: EngineCall) -> None:
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
@pytest.mark.timeout(300)
def test_sum_of_settled_and_reserved_is_within_every_limit_after_every_step(
    tmp_path: Path, engine: FakeEngine, new_seed: int
):
    """200 callers, some leaving at random moments, on a backend failing at random, under limits of every unit."""
    moody = MoodyEngine(new_seed)
    command = [
        sys.executable,
        "-m",
        "tests.e2e.every_step",
        tmp_path,
        engine.url,
        engine.script(moody),
        str(new_seed),
    ]

    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    (tmp_path / "stderr.log").write_text(outcome.stderr)

    assert outcome.returncode == 0, outcome.stderr[-5000:]
    seen = json.loads(outcome.stdout)
    print(seen)
    assert (seen["over"], seen["left"], seen["odd"]) == ([], [], [])
    assert len(moody.moods) == 6
    assert min(seen["steps"][name] for name in ("reserve", "settle")) > CALLERS
    assert all(seen["fullest"][unit] > 0.95 for unit in ("requests", "tokens", "USD", "concurrent"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sum_of_settled_and_reserved_never_exceeds_a_limit(
    make_server: MakeServer, engine: FakeEngine, new_seed: int
):
    """The same on a server as it is served; afterwards the counters equal the records."""
    moody = MoodyEngine(new_seed)
    script = engine.script(moody)
    server = make_server(config=CONFIG.format(engine=engine.url)).start()
    server.admin("POST", "/api/v1/users", {"name": "ada", "limits": list(USER)})
    keys = [server.make_key(name, user="ada", limits=list(limits)) for name, limits in KEYS.items()]
    server.admin("PUT", "/api/v1/limits", {"subject": "model", "id": MODEL, "limits": list(ON_MODEL)})
    each_user = {"subject": "user_model", "user": "*", "model": MODEL, "limits": list(EACH_USER)}
    server.admin("PUT", "/api/v1/limits", each_user)
    names = list(KEYS)
    callers, watcher = Callers(server.port, keys, script, new_seed), Watcher(server, names)

    async def play() -> None:
        watching = asyncio.create_task(watcher.watch())
        await callers.run()
        assert not watching.done(), watching.exception()
        watching.cancel()

    asyncio.run(play())

    for name in names:
        wait_until_free(server, name, MODEL)
    callers.check()
    assert watcher.over == []
    assert watcher.looks > 20
    assert watcher.most_reserved["tokens"] > 0
    assert len(moody.moods) == 6
    left = server.records("end_reason = 'client_gone' AND completion_tokens > 0 AND charged_tokens > 0")
    assert len(left) > 5, "streams were cut in the middle"
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
