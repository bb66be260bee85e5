"""kill -9: what was answered is recorded, once, and quotas go on where they were."""

import asyncio
import collections
import os
import random
import signal
import time
from pathlib import Path

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import Received, call_many, call_until_killed
from tests.e2e.raw_http import chat, get, post

CHAT = "/v1/chat/completions"
LIMIT = 2500


def mixed_body(number: int) -> dict:
    """Every third call streams, slowly enough that some are always under way."""
    return chat(stream=True, pause_s=0.002) if number % 3 == 0 else chat()


def calls_until_kill_after(server: LingpaiServer, key: str, seconds: float) -> Received:
    async def both() -> Received:
        asyncio.get_running_loop().call_later(seconds, server.process.kill)
        return await call_until_killed(server.port, key, callers=16, make_body=mixed_body)

    received = asyncio.run(both())
    server.kill()
    return received


def children_of(pid: int) -> dict[int, str]:
    """Command lines of the direct children, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(path.parent.name)] = (path.parent / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def used_of(server: LingpaiServer, key: str) -> int:
    (limit,) = get(server.port, "/v1/key", key=key).json["limits"]
    return limit["used"]


def test_answered_means_recorded_through_several_crashes(make_server: MakeServer, engine):
    """After each of several kills under load: every received answer has one record, and the quota is not exceeded."""
    server = make_server(engine.url).start()
    key = server.make_key("batch", limits=[f"{LIMIT}/day"])
    answered: list[str] = []

    for _ in range(3):
        received = calls_until_kill_after(server, key, random.uniform(0.1, 0.3))
        answered += received.answered
        server.start()

        charged = [record["request_id"] for record in server.records("charged > 0")]
        doubled = [id_ for id_, count in collections.Counter(charged).items() if count > 1]
        assert answered
        assert set(answered) <= set(charged)
        assert doubled == []
        assert len(answered) <= used_of(server, key) <= LIMIT
        assert used_of(server, key) == len(charged)
        (row,) = server.cli_json("usage", "--by", "key")
        assert row["requests"] >= len(answered)

    left = LIMIT - used_of(server, key)
    statuses = asyncio.run(call_many(server.port, key, calls=left + 50, callers=16))
    assert collections.Counter(statuses) == {200: left, 429: 50}


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

    assert wait_until(lambda: not any(is_alive(pid) for pid in children))


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
