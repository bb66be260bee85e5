"""The wall clock is set back and forth under a running server: nothing breaks, and no limit is ever over."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, post, post_bytes
from tests.fakes.openai_engine import FakeEngine

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HOUR = 3600
# Away from the ends of hours and days, wherever the jumps lead.
START = datetime(2027, 3, 10, 12, 20, tzinfo=UTC).timestamp()


def library() -> Path:
    """Debian's package faketime."""
    found = [
        *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
        *Path("/usr/lib/faketime").glob("libfaketimeMT.so.1"),
    ]
    assert found, "this test needs libfaketime (Debian's package faketime)"
    return found[0]


class Clock:
    """The wall clock of a server and of all its processes. Monotonic time goes on as ever."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.time()
        self.set(0)

    def set(self, offset: float) -> None:
        """`offset` seconds from where the clock would be, had nobody touched it since the test began."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{START - self._began + offset:+.3f}\n")
        new.rename(self._path)  # never half of it

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def server(make_server: MakeServer, engine: FakeEngine, clock: Clock) -> LingpaiServer:
    return make_server(engine.url, environment=clock.environment).start()


def statuses(server: LingpaiServer, key: str, count: int) -> Counter[int]:
    return Counter(post(server.port, CHAT, chat(), key=key).status for _ in range(count))


def test_window_that_had_begun_stays_when_the_clock_goes_back(server: LingpaiServer, clock: Clock):
    """Going back gives nobody a second share of an hour, and the next hour comes once."""
    hourly = server.make_key("hourly", limits=["5/hour@UTC"])
    daily = server.make_key("daily", limits=["17/day@UTC"])
    granted = []
    for hours in (0, 1, 0, 1, 2, -1, 2, 3, 0):
        clock.set(hours * HOUR)
        granted.append((statuses(server, hourly, 7)[200], statuses(server, daily, 7)[200]))

    assert [hour for hour, _ in granted] == [5, 5, 0, 0, 5, 0, 0, 5, 0]
    assert [day for _, day in granted] == [7, 7, 3, 0, 0, 0, 0, 0, 0]


def test_calls_of_the_future_count_after_a_restart_while_the_clock_is_back(
    server: LingpaiServer, clock: Clock
):
    """A server that starts believes its clock; what is recorded of later hours counts in the present one."""
    key = server.make_key("hourly", limits=["5/hour@UTC"])
    clock.set(HOUR)
    before = statuses(server, key, 3)
    clock.set(0)
    assert server.stop() == 0
    server.start()

    assert before[200] == 3
    assert statuses(server, key, 7)[200] == 2
    assert len(server.records("status = 200")) == 5


def test_smooth_rate_goes_on_at_once_when_the_clock_goes_back(server: LingpaiServer, clock: Clock):
    """Neither all at once nor nothing for an hour."""
    key = server.make_key("smooth", limits=["5/10s"])
    began, first = time.monotonic(), statuses(server, key, 8)[200]
    clock.set(-HOUR)
    back = statuses(server, key, 8)[200]
    time.sleep(4.5)
    later = statuses(server, key, 8)[200]

    assert first >= 5
    assert later >= 1
    assert first + back + later <= 5 + (time.monotonic() - began) / 2


class Caller(threading.Thread):
    """Calls on one connection until it is told to stop, every third time for a stream."""

    def __init__(self, server: LingpaiServer, key: str) -> None:
        super().__init__()
        self._server, self._key = server, key
        self.answers: list[RawAnswer] = []
        self.is_told_to_stop = threading.Event()

    def run(self) -> None:
        with RawConnection(self._server.port) as connection:
            while not self.is_told_to_stop.is_set():
                body = chat(stream=len(self.answers) % 3 == 2, pause_s=0.01)
                connection.send(post_bytes(CHAT, body, key=self._key))
                self.answers.append(connection.read_answer())

    def ids(self, *statuses: int) -> list[str]:
        return [each.headers["x-request-id"] for each in self.answers if each.status in statuses]


def test_jumps_under_load_break_nothing(server: LingpaiServer, clock: Clock):
    """Calls, streams, limits of every unit, records and reports, while the clock goes back and forth by hours."""
    limits = {
        "free": "none",
        "daily": "50/day@UTC",
        "tokens": "300 tokens/day@UTC",
        "few": "2 concurrent wait 2s",
    }
    keys = {name: server.make_key(name, limits=[limit]) for name, limit in limits.items()}
    callers = {name: [Caller(server, key) for _ in range(2)] for name, key in keys.items()}
    every = [each for pair in callers.values() for each in pair]

    for each in every:
        each.start()
    for hours in (0, 1, -1, 0, 2, 1, -2, 0.25, 0) * 2:
        clock.set(hours * HOUR)
        time.sleep(0.4)
    for each in every:
        each.is_told_to_stop.set()
        each.join()

    answers = [answer for each in every for answer in each.answers]
    assert {each.status for each in answers} <= {200, 429}
    assert all(each.is_complete for each in answers)
    ids = [each.headers["x-request-id"] for each in answers]
    assert len(set(ids)) == len(ids)
    rows = server.records()
    assert sorted(row["request_id"] for row in rows) == sorted(ids)
    assert all(0 <= row["duration_ms"] < 10_000 for row in rows)  # not by the wall clock
    order = {row["request_id"]: row["id"] for row in rows}
    for each in every:
        own = [order[id_] for id_ in each.ids(200, 429)]
        assert own == sorted(own)
        assert len(each.ids(200)) > 5
    assert len(callers["free"][0].ids(429) + callers["few"][0].ids(429)) == 0
    assert sum(len(each.ids(200)) for each in callers["daily"]) == 50
    tokens = [row["charged_tokens"] for row in rows if row["key_id"] == key_id(keys["tokens"])]
    assert 250 < sum(tokens) <= 300
    reported = server.admin("GET", "/api/v1/usage?by=key&since=2027-03-01&until=2027-03-20")["data"]
    assert sum(row["requests"] for row in reported) == len(ids) - len([a for a in answers if a.status == 429])
    assert "Traceback" not in server.stderr
    assert server.stop() == 0


def key_id(key: str) -> str:
    return key.removeprefix("sk-lp-")[:12]
