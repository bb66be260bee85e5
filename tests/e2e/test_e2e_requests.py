"""The calls one by one: listed, paged, filtered, exported, kept for a while, and the sums that stay right without them."""

import asyncio
import csv
import io
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lingpai.metering.journal import Journal
from lingpai.metering.records import UsageRecord
from lingpai.metering.settings import MeteringSettings
from tests.e2e.conftest import MakeServer
from tests.e2e.limit_world import World
from tests.e2e.lingpai_server import LingpaiServer, read_records
from tests.e2e.raw_http import RawAnswer, chat, get, post
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
DAY_S = 86_400
QUARTER_S = 900


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.start(tmp_path_factory.mktemp("requests"))
    yield world
    world.stop()


def requests_of(world: World, key: str, query: str = "") -> RawAnswer:
    return get(world.server.port, f"/api/v1/requests?{query}", key=key)


def member_key(world: World, user: str) -> str:
    return world.server.make_key(f"{user}-reads", user=user, scopes=["model:inference", "usage:read"])


# -- lists


def test_pages_are_stable_while_calls_come_in(world: World):
    """Every call that was there when the first page was read comes exactly once, and none in between moves another."""
    caller = world.caller()
    for _ in range(30):
        caller.call()
    there = [call["id"] for call in world.server.cli_json("requests", "list", "--key", caller.key)]
    ended = threading.Event()

    def go_on_calling() -> None:
        while not ended.is_set():
            caller.call()

    thread = threading.Thread(target=go_on_calling)
    thread.start()
    try:
        pages, cursor = [], ""
        while cursor is not None:
            query = f"key={caller.key}&limit=7{f'&cursor={cursor}' if cursor else ''}"
            page = world.server.admin("GET", f"/api/v1/requests?{query}")
            pages.append([call["id"] for call in page["data"]])
            cursor = page["next_cursor"]
    finally:
        ended.set()
        thread.join()

    listed = [id_ for page in pages for id_ in page]
    assert len(there) == 30
    assert len(set(listed)) == len(listed)
    assert listed[-30:] == there
    assert len(world.server.cli_json("requests", "list", "--key", caller.key)) > len(listed)


def test_filters_find_what_they_say(world: World):
    """By key, user, project, model, status or class of it, end, endpoint, id and time."""
    caller, other = world.caller(), world.caller(of="free")
    caller.limit("key", ["2/day"])
    for _ in range(3):
        caller.refusal()
    other.call()
    everything = [
        "--user", caller.user, "--project", caller.project, "--model", caller.model, "--status", "4xx",
        "--end-reason", "refused", "--endpoint", "chat.completions", "--since", "1h",
    ]  # fmt: skip

    def found(*arguments: str) -> list[int]:
        return [call["status"] for call in world.server.cli_json("requests", "list", *arguments)]

    assert found("--key", caller.key) == [429, 200, 200]
    assert found("--user", caller.user) == found("--project", caller.project) == [429, 200, 200]
    assert found("--model", other.model) == [200]
    assert found("--key", caller.key, "--status", "429") == [429]
    assert found("--key", caller.key, "--end-reason", "complete") == [200, 200]
    assert found(*everything) == [429]
    assert found("--key", caller.key, "--endpoint", "embeddings") == []
    assert found("--key", caller.key, "--since", "2030-01-01") == []


def test_a_call_can_be_shown_by_the_id_that_its_answer_had(world: World):
    caller = world.caller()
    answer = post(world.server.port, CHAT, chat(model=caller.model), key=caller.sdk.api_key)

    shown = world.server.cli("requests", "show", answer.headers["x-request-id"])

    assert shown.returncode == 0
    lines = dict(
        line.split(maxsplit=1) for line in shown.stdout.splitlines() if len(line.split(maxsplit=1)) == 2
    )
    assert lines["model"] == caller.model
    assert lines["status"] == "200"
    assert "canary" not in shown.stdout


def test_members_see_their_own_calls_only(world: World):
    """Whatever they ask for; what belongs to others does not exist."""
    alice, bob = world.caller(), world.caller()
    for caller in (alice, bob):
        caller.call()
    theirs = world.server.cli_json("requests", "list", "--key", bob.key)[0]["id"]
    key = member_key(world, alice.user)

    everything = requests_of(world, key)
    of_bob = [
        requests_of(world, key, query)
        for query in (f"key={bob.key}", f"user={bob.user}", f"project={bob.project}", f"request_id={theirs}")
    ]
    one = get(world.server.port, f"/api/v1/requests/{theirs}", key=key)
    export = get(world.server.port, "/api/v1/requests/export?format=jsonl", key=key)
    without_scope = requests_of(world, alice.sdk.api_key)

    assert [call["user"] for call in everything.json["data"]] == [alice.user]
    assert [answer.status for answer in of_bob] == [404, 404, 404, 200]
    assert of_bob[3].json["data"] == []
    assert one.status == 404
    assert [json.loads(line)["user"] for line in export.body.decode().splitlines()] == [alice.user]
    assert without_scope.status == 403


# -- export


def test_exports_have_every_call_and_no_formula(world: World, tmp_path: Path):
    """CSV that a spreadsheet cannot be tricked with, and JSON lines with the fields of the list."""
    caller = world.caller().with_key("=SUM(A1:A9)")
    for _ in range(5):
        caller.call()
    server, path = world.server, tmp_path / "calls.csv"

    written = server.cli("requests", "export", "--user", caller.user, "--output", str(path), "--bom")
    lines = server.cli("requests", "export", "--user", caller.user, "--format", "jsonl").stdout.splitlines()

    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))
    listed = server.cli_json("requests", "list", "--user", caller.user)
    assert written.returncode == 0
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert [row["key"] for row in rows] == ["'=SUM(A1:A9)"] * 5
    assert [row["id"] for row in rows] == [call["id"] for call in reversed(listed)]
    assert {row["cost"] for row in rows} == {"0.0000525"}
    assert [json.loads(line) for line in lines] == list(reversed(listed))


# -- what comes late, and what goes


def record(number: int, started_at: float, **changes: Any) -> UsageRecord:
    """One as an earlier server may have left it in the journal."""
    fields = {
        "request_id": f"req_late{number:016x}", "key_id": "", "user_id": "usr_gone", "model": "usd/0",
        "backend": "dollars", "task": "chat", "endpoint": "chat.completions", "started_at": started_at, "first_byte_ms": 1.0,
        "duration_ms": 2.0, "prompt_tokens": 5, "completion_tokens": 4, "cached_tokens": 0, "reasoning_tokens": 0,
        "counted": "reported", "status": 200, "end_reason": "complete", "charged": 1, "retries": 0,
        "client_address": "127.0.0.1", "charged_tokens": 9, "cost": 52_500, "currency": "USD", "charged_cost": 52_500,
        **changes,
    }  # fmt: skip
    return UsageRecord(**fields)


def leave_in_journal(server: LingpaiServer, records: list[UsageRecord]) -> Path:
    """Write a segment as a server does, for one that is stopped; its path."""

    async def write() -> Path:
        journal = Journal(
            server.data / "journal", asyncio.get_running_loop(), MeteringSettings(fsync="never")
        )
        for each in records:
            journal.append(each, lambda recorded: None)
        journal.close()
        return max((server.data / "journal").glob("*.journal"))

    return asyncio.run(write())


def sums(server: LingpaiServer, **more: str) -> dict[str, Any]:
    """What was used within the last 200 days."""
    query = "&".join(f"{name}={value}" for name, value in {"since": "200d", **more}.items())
    (row,) = server.admin("GET", f"/api/v1/usage?{query}")["data"]
    return dict(row)


def test_records_that_come_late_count_where_they_belong(make_server: MakeServer):
    """A call that began hours ago and ends now is in the hour in which it began."""
    server = make_server().start()
    assert server.stop() == 0
    now = time.time()
    late = [record(number, now - hours * 3600) for number, hours in enumerate((30, 2, 29, 2, 54))]
    leave_in_journal(server, late)

    server.start()
    by_hour = server.admin("GET", "/api/v1/usage?by=hour&since=3d")["data"]
    in_period = server.admin(
        "GET", f"/api/v1/requests?since={_iso(now - 40 * 3600)}&until={_iso(now - 10 * 3600)}"
    )["data"]

    assert sorted(row["requests"] for row in by_hour) == [1, 1, 1, 2]
    assert sum(row["prompt_tokens"] for row in by_hour) == 25
    assert sorted(call["id"] for call in in_period) == [late[0].request_id, late[2].request_id]
    assert server.cli_json("usage", "rebuild")["repaired"] == []


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def test_old_records_go_and_the_sums_stay(make_server: MakeServer):
    """Soon after the start, while it serves: the reports of that time are as before, and so is their repair."""
    server = make_server(config="[metering]\nretention_days = 62\n").start()
    assert server.stop() == 0
    now = time.time()
    old = [record(number, now - 100 * DAY_S + number) for number in range(2500)]
    # Over several days: a clock that has leapt ahead for a few calls must not delete anything.
    new = [record(5000 + number, now - (number % 10) * DAY_S - 60) for number in range(20)]
    leave_in_journal(server, [*old, *new])

    server.start()
    before = sums(server)
    deadline = time.monotonic() + 20
    while len(read_records(server.data)) > 20 and time.monotonic() < deadline:
        time.sleep(0.1)
    kept = read_records(server.data)
    rebuilt = server.cli_json("usage", "rebuild")

    assert before["requests"] == 2520
    assert {each["request_id"] for each in kept} == {each.request_id for each in new}
    assert sums(server) == before
    assert before["costs"] == {"USD": "0.1323"}
    assert rebuilt["repaired"] == []
    assert server.admin("GET", "/api/v1/usage/journal")["kept_since"] is not None
    gone = server.try_admin("GET", f"/api/v1/requests/{old[0].request_id}")
    assert gone[0] == 404


def test_rebuild_repairs_falsified_sums_while_the_server_answers(make_server: MakeServer, engine: FakeEngine):
    """It says what was wrong; calls go on meanwhile and are in the sums afterwards, each once."""
    server = make_server(engine.url).start()
    key = server.make_key("app")
    answered = sum(post(server.port, CHAT, chat(), key=key).status == 200 for _ in range(20))
    right = sums(server)
    with closing(sqlite3.connect(server.data / "lingpai.db", timeout=10)) as database, database:
        database.execute("UPDATE usage_rollups SET requests = requests + 7, prompt_tokens = 1")
        database.execute("INSERT INTO usage_rollups SELECT 900, 'nobody', user_id, client_id, project_id, model, task, 1,"
                         " 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0 FROM usage_rollups LIMIT 1")  # fmt: skip
    false = sums(server)
    ended = threading.Event()
    more = []

    def go_on_calling() -> None:
        while not ended.is_set():
            more.append(post(server.port, CHAT, chat(), key=key).status)

    thread = threading.Thread(target=go_on_calling)
    thread.start()
    shown = server.cli("usage", "rebuild")
    again = server.cli_json("usage", "rebuild")
    ended.set()
    thread.join()

    total = answered + len(more)
    assert (right["requests"], right["prompt_tokens"], false["prompt_tokens"]) == (20, 100, 1)
    assert shown.returncode == 0
    assert "requests" in shown.stdout
    assert "repaired" in shown.stderr
    assert again["repaired"] == []
    assert set(more) == {200}
    after = sums(server)
    assert (after["requests"], after["prompt_tokens"]) == (total, 5 * total)
    assert len(read_records(server.data)) == total


# -- a journal that was damaged


def test_damage_between_two_starts_costs_the_damaged_record_only(make_server: MakeServer):
    """It is skipped to the next good record, and said in the log, the metrics, the API, and an event."""
    server = make_server().start()
    assert server.stop() == 0
    now = time.time()
    segment = leave_in_journal(server, [record(number, now - 60) for number in range(10)])
    data = bytearray(segment.read_bytes())
    place = data.index(b"req_late%016x" % 4)
    data[place] ^= 0xFF
    segment.write_bytes(bytes(data))

    server.start()
    kept = {each["request_id"] for each in server.records()}
    state = server.admin("GET", "/api/v1/usage/journal")
    metrics = get(server.port, "/metrics").body.decode()
    event = wait_for_event(server, "journal.damaged")
    server.stop()
    server.start()
    time.sleep(1.5)

    assert kept == {f"req_late{number:016x}" for number in range(10) if number != 4}
    assert (state["is_healthy"], state["damage_count"], state["waiting_records"]) == (True, 1, 0)
    assert state["damage"][0]["segment"] == int(segment.stem)
    assert "is damaged: skipped" in state["damage"][0]["description"]
    assert "lingpai_journal_skipped 1.0" in metrics
    assert "lingpai_journal_records 0.0" in metrics
    assert "is damaged: skipped" in server.stderr
    assert event["data"]["segment"] == int(segment.stem)
    assert sums(server)["requests"] == 9
    assert (
        len(server.cli_json("events", "list", "--type", "journal.damaged")) == 1
    )  # told once, over restarts too


def wait_for_event(server: LingpaiServer, type_: str) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while not (found := server.cli_json("events", "list", "--type", type_)):
        assert time.monotonic() < deadline, f"no {type_}"
        time.sleep(0.1)
    return dict(found[0])
