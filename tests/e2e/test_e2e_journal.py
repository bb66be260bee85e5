"""The usage journal between the calls and the database: locked, cleaned up, and in every mode of fsync."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import bookkeeping
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import ROOT
from tests.e2e.load import Crowd, Planned, Sent
from tests.e2e.processes import children_of
from tests.e2e.raw_http import chat, get, post, post_bytes
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
MODEL = "fake/chat"
LIMITS = ["100000/month", "900000 tokens/month"]
LOCKED_S = 16.0
"""Longer than anybody waits for the lock: the ingester and the server's own writers give up after 10 s."""


ANSWERS = 3000
SEGMENT_BYTES = 4096
RECORD_BYTES = 150
"""A record has more."""


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Somebody else holds the database's write lock, as a backup or a careless administrator does."""
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


def test_locked_database_costs_no_call_and_no_record(make_server: MakeServer, engine: FakeEngine):
    """For 16 s nothing can be written: calls go on, questions are told to wait, and then everything arrives."""
    server = make_server(engine.url, config="[metering]\nusage_wait_s = 1.0\n").start()
    keys = {name: server.make_key(name, limits=LIMITS) for name in ("old", "fresh")}
    old = keys["old"]
    answered = [post(server.port, CHAT, chat(), key=old).headers["x-request-id"] for _ in range(5)]
    bookkeeping.wait_until_free(server, "old", MODEL)
    server.records()

    with locked(server.data / "lingpai.db"):
        until = time.monotonic() + LOCKED_S
        patient = _InThread(lambda: server.try_admin("POST", "/api/v1/keys", {"name": "late"}))
        during = [post(server.port, CHAT, chat(), key=old) for _ in range(50)]
        # A key that was not used yet is known by a look-up, which is no write. None of its usage can be in the journal.
        first_use = post(server.port, CHAT, chat(), key=keys["fresh"])
        own_limits = get(server.port, "/v1/key", key=keys["fresh"])
        usage = server.try_admin("GET", "/api/v1/usage")
        requests = server.try_admin("GET", "/api/v1/requests")
        while time.monotonic() < until:
            during.append(post(server.port, CHAT, chat(), key=old))
            time.sleep(0.05)
        late = patient.result()

    answered += [answer.headers["x-request-id"] for answer in during]
    assert {answer.status for answer in during} == {200}
    assert (first_use.status, own_limits.status) == (200, 200)
    answered.append(first_use.headers["x-request-id"])
    for status, told in (usage, requests):
        assert (status, told["error"]["code"]) == (503, "storage_unavailable")
    assert (late[0], late[1]["error"]["code"]) == (503, "storage_unavailable")  # after 10 s
    records = wait_for_records(server)
    assert sorted(each["request_id"] for each in records) == sorted(answered)
    bookkeeping.check_counters(server, {"old": old, "fresh": keys["fresh"]}, MODEL, records)


HURRY = "import lingpai.metering.watch\nlingpai.metering.watch.DELAYED_AFTER_S = 1.0\n"
"""What a Python process runs first: records that wait for a second, and not for a minute, are late."""


def test_database_that_is_away_costs_no_call_and_no_record(
    make_server: MakeServer, engine: FakeEngine, tmp_path: Path
):
    """Its files are gone for some seconds: calls go on, there is an event, nobody makes an empty one, and all arrives once."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(HURRY)
    environment = {"PYTHONPATH": f"{tmp_path / 'first'}:{ROOT}"}
    config = "[metering]\nusage_wait_s = 0.5\n"
    server = make_server(engine.url, config=config, environment=environment).start()
    keys = {name: server.make_key(name, limits=LIMITS) for name in ("old", "fresh")}
    old = keys["old"]
    answers = [post(server.port, CHAT, chat(), key=old) for _ in range(5)]
    server.records()
    (ingester,) = [pid for pid, command in children_of(server.process.pid).items() if "ingester" in command]

    with taken_away(server.data):
        os.kill(
            ingester, signal.SIGKILL
        )  # its successor finds nothing; what is open stays so wherever the file is
        until = time.monotonic() + 4
        while time.monotonic() < until:
            answers.append(post(server.port, CHAT, chat(), key=old))
            time.sleep(0.02)
        many = [_InThread(lambda: server.try_admin("GET", "/api/v1/keys")[0]) for _ in range(30)]
        statuses = {each.result() for each in many}
        usage = server.try_admin("GET", "/api/v1/usage")
        has_new = (server.data / "lingpai.db").exists()
    answers.append(post(server.port, CHAT, chat(), key=keys["fresh"]))
    records = wait_for_records(server, 40)

    assert {answer.status for answer in answers} == {200}
    assert (usage[0], usage[1]["error"]["code"]) == (503, "storage_unavailable")
    assert statuses <= {200, 503}
    assert not has_new
    assert sorted(each["request_id"] for each in records) == sorted(
        answer.headers["x-request-id"] for answer in answers
    )
    bookkeeping.check_counters(server, keys, MODEL, records)
    late, *_ = server.cli_json("events", "list", "--type", "usage.delayed")
    assert late["data"]["waiting_records"] > 0


def test_segment_that_is_damaged_while_the_server_runs_costs_what_is_damaged_and_is_told(
    make_server: MakeServer, engine: FakeEngine
):
    """Some bytes of what is not loaded yet are overwritten: the other records arrive, once, and calls go on."""
    server = make_server(engine.url).start()
    key = server.make_key("batch", limits=LIMITS)
    before = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(5)]
    server.records()
    (ingester,) = [pid for pid, command in children_of(server.process.pid).items() if "ingester" in command]
    segment = max((server.data / "journal").glob("*.journal"))

    os.kill(ingester, signal.SIGSTOP)
    try:
        start = segment.stat().st_size
        waiting = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(20)]
        with segment.open("r+b") as file:
            file.seek((start + segment.stat().st_size) // 2)
            file.write(b"\xff" * 8)
    finally:
        os.kill(ingester, signal.SIGCONT)
    after = [post(server.port, CHAT, chat(), key=key).headers["x-request-id"] for _ in range(5)]
    records = wait_for_records(server)

    found = [each["request_id"] for each in records]
    lost = set(before + waiting + after) - set(found)
    assert len(found) == len(set(found))
    assert 1 <= len(lost) <= 2
    assert lost <= set(waiting[5:15])
    journal = server.admin("GET", "/api/v1/usage/journal")
    assert len(journal["damage"]) == 1
    [limit] = [row for row in bookkeeping.limits_of(server, "batch", MODEL) if row["unit"] == "requests"]
    assert limit["used"] == 30  # who was answered has used it, as long as the server knows
    wait_for_event(server, "journal.damaged")
    server.kill()
    server.start()
    bookkeeping.check_counters(server, {"batch": key}, MODEL, server.records())


def wait_for_event(server: Any, type_: str) -> None:
    """Wait until there is one, and not more."""
    deadline = time.monotonic() + 10
    while len(found := server.cli_json("events", "list", "--type", type_)) != 1:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@contextlib.contextmanager
def taken_away(data: Path) -> Iterator[None]:
    """Somebody has moved the database, with all that belongs to it."""
    away = data / "away"
    away.mkdir()
    for path in data.glob("lingpai.db*"):
        path.rename(away / path.name)
    try:
        yield
    finally:
        for path in away.iterdir():
            path.rename(data / path.name)


def test_limits_changed_while_records_wait_are_refused_until_it_is_known_what_was_used(
    make_server: MakeServer, engine: FakeEngine
):
    """With records on their way and no ingester, new counters would be guesses: 503 with the reason, then exact again."""
    server = make_server(engine.url, config="[metering]\nusage_wait_s = 0.5\n").start()
    key = server.make_key("batch", limits=["20/month"])
    (ingester,) = [pid for pid, command in children_of(server.process.pid).items() if "ingester" in command]
    os.kill(ingester, signal.SIGSTOP)
    try:
        first = [post(server.port, CHAT, chat(), key=key).status for _ in range(8)]
        server.admin("PATCH", "/api/v1/keys/batch", {"limits": ["10/month@Asia/Tokyo"]})
        meanwhile = post(server.port, CHAT, chat(), key=key)
    finally:
        os.kill(ingester, signal.SIGCONT)
    records = wait_for_records(server)
    then = [post(server.port, CHAT, chat(), key=key).status for _ in range(4)]

    assert first == [200] * 8
    assert (meanwhile.status, meanwhile.error["code"]) == (503, "storage_unavailable")
    assert "what" in meanwhile.error["message"].lower()
    assert int(meanwhile.headers["retry-after"]) > 0
    assert [each["charged"] for each in records if each["status"] == 200] == [1] * 8
    assert then == [200, 200, 429, 429]
    bookkeeping.check_counters(server, {"batch": key}, MODEL, server.records())


class _InThread:
    """Something that takes long, done meanwhile."""

    def __init__(self, work: Any) -> None:
        self._found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._found.append(work()))
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(60)
        return self._found[0]


def wait_for_records(server: Any, seconds: float = 20) -> list[bookkeeping.Record]:
    """All records, as soon as a usage question is answered again."""
    deadline = time.monotonic() + seconds
    while server.try_admin("GET", "/api/v1/usage")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return list(server.records())


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_segments_are_cleaned_up_under_load_in_every_fsync_mode(
    make_server: MakeServer, engine: FakeEngine, fsync: str, new_seed: int
):
    """Loaded segments are deleted while calls go on, and two kill -9 lose nothing, however seldom the disk is told."""
    config = f'[metering]\nfsync = "{fsync}"\nsegment_bytes = {SEGMENT_BYTES}\n'
    server = make_server(engine.url, config=config).start()
    key = server.make_key("batch", limits=LIMITS)
    journal = server.data / "journal"
    most = largest = 0

    def plan(dice: random.Random) -> Planned:
        kind = dice.choice(["unary", "stream"])
        return Planned(post_bytes(CHAT, chat(stream=kind == "stream"), key=key), kind)

    async def play(number: int) -> list[Sent]:
        nonlocal most, largest
        crowd = Crowd(server.port, plan, net=number, seed=new_seed + number)
        running = asyncio.create_task(crowd.run(8))
        while not running.done() and sum(call.is_answered for call in crowd.sent) < ANSWERS / 2:
            await asyncio.sleep(0.02)
            sizes = sizes_of_segments(journal)
            most, largest = max(most, len(sizes)), max([largest, *sizes])
        server.process.kill()
        return await running

    sent = []
    for number in (1, 2):
        sent += asyncio.run(play(number))
        server.kill()
        server.start()

    records = server.records()
    assert sum(call.is_answered for call in sent) >= ANSWERS
    assert largest < 2 * SEGMENT_BYTES  # what is written at once may stand out over the end
    assert most < ANSWERS * RECORD_BYTES // largest  # so many were begun, at least
    bookkeeping.check_each_call_once(records, sent)
    bookkeeping.check_counters(server, {"batch": key}, MODEL, records)
    wait_for_few_segments(journal)


def sizes_of_segments(journal: Path) -> list[int]:
    sizes = []
    for path in journal.glob("*.journal"):
        with contextlib.suppress(FileNotFoundError):  # loaded and deleted just now
            sizes.append(path.stat().st_size)
    return sizes


def wait_for_few_segments(journal: Path) -> None:
    """What the killed server left is deleted, but for the segment that is being written to."""
    deadline = time.monotonic() + 5
    while len(list(journal.glob("*.journal"))) > 1:
        assert time.monotonic() < deadline, sorted(journal.iterdir())
        time.sleep(0.05)
