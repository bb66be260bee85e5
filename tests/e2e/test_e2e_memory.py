"""A million calls later the process has the size that it had after the first thousand."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import post
from tests.e2e.soak import CHAT, Load, Pack, text_body
from tests.fakes.fast_upstream import FastUpstream, fast_upstream
from tests.secrets_scan import SCAN

CALLS = int(os.environ.get("LINGPAI_SOAK_CALLS", "1000000"))
"""How many plain calls follow the first thousand; a tenth as many streams come on top."""
PACKS_AT_ONCE = 100
MOST_GROWTH = 1.1
MOST_NEW_DESCRIPTORS = 12
"""Threads open the database when they are first needed: three descriptors each."""

KEYS = 8
# Each limit is taken from by every call of its key, and none is ever reached. Tokens make a call dearer, so that only
# some keys have them.
LIMITS = ["1000000000/day@Asia/Shanghai", "1000000000/1s"]
MORE_LIMITS = [*LIMITS, "1000000000000 tokens/month", "100000 concurrent"]


@dataclass(frozen=True)
class Size:
    """What the server's process has: bytes of memory, those of them that are in no file, and open descriptors.

    Idle connections to the backend are no descriptors here: as many are kept as were needed at once.
    """

    resident: int
    anonymous: int
    descriptors: int

    def __str__(self) -> str:
        sizes = f"{self.resident / 1e6:.1f} MB resident, {self.anonymous / 1e6:.1f} MB of it anonymous"
        return f"{sizes}, {self.descriptors} descriptors"


@dataclass(frozen=True)
class Soak:
    """A server under load and the backend behind it."""

    server: LingpaiServer
    upstream: FastUpstream
    pack: Pack
    began: float

    def run(self, packs: int, *, before: int) -> Size:
        """Make the calls of `packs` packs, `before` others having gone; the size when the last record is loaded."""
        load = Load(self.server.port, self.pack.steps(packs, seed=before)).run()
        assert not load.errors, load.errors
        wait_for_records(self.server, 1 + (before + packs) * Pack.RECORDED)
        size = self._size()
        calls, elapsed = (before + packs) * Pack.CALLS, time.monotonic() - self.began
        print(f"{calls:>9,} calls, {calls // 10:>7,} streams, {elapsed:5.1f} s: {size}", flush=True)
        return size

    def _size(self) -> Size:
        assert self.server.process is not None
        pid = self.server.process.pid
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return Size(
            resident=kilobytes["Rss"] * 1024,
            anonymous=kilobytes["Anonymous"] * 1024,
            descriptors=count_descriptors(pid) - count_descriptors(self.upstream.pid),
        )


def count_descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def wait_for_records(server: LingpaiServer, expected: int, *, seconds: float = 60) -> None:
    """Wait until so many calls are in the roll-ups; a call that was left is recorded a little later."""
    deadline = time.monotonic() + seconds
    while (
        found := query(server, "SELECT coalesce(sum(requests + refused), 0) FROM usage_rollups")[0][0]
    ) != expected:
        assert time.monotonic() < deadline, f"{found} of {expected} calls are recorded"
        time.sleep(0.2)


def query(server: LingpaiServer, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_process_is_as_large_after_a_million_calls_as_after_a_thousand(make_server: MakeServer):
    """Calls and streams of all sizes, some refused, some with unknown keys, some left in the middle; each is counted."""
    with fast_upstream() as upstream:
        server = make_server(upstream.url).start()
        keys = [
            server.make_key(f"key-{number}", limits=LIMITS if number > 1 else MORE_LIMITS)
            for number in range(KEYS)
        ]
        spent = server.make_key("spent", limits=["1/month"])
        assert post(server.port, CHAT, text_body(50), key=spent).status == 200
        soak = Soak(server, upstream, Pack(keys, spent=spent), time.monotonic())
        packs = max(1, CALLS // Pack.CALLS)

        first = last = soak.run(1, before=0)
        for done in range(1, 1 + packs, PACKS_AT_ONCE):
            last = soak.run(min(PACKS_AT_ONCE, 1 + packs - done), before=done)

    assert last.resident <= first.resident * MOST_GROWTH
    assert last.anonymous <= first.anonymous * MOST_GROWTH
    assert last.descriptors <= first.descriptors + MOST_NEW_DESCRIPTORS
    check_usage(server, 1 + packs)
    # Over a gigabyte of records and as much of exports: nobody wants them once the scan for secrets has read them.
    server.keep_what_it_shows(timeout=300)
    server.kill()
    SCAN.take(server.folder)


def check_usage(server: LingpaiServer, packs: int) -> None:
    """Every call is in the report and in the records, as what it was; one came before the packs."""
    (row,) = server.admin("GET", "/api/v1/usage?since=1d")["data"]
    ends = dict(query(server, "SELECT end_reason, count(*) FROM usage_records GROUP BY 1"))

    assert row["requests"] == 1 + packs * (Pack.CALLS + Pack.STREAMS)
    assert row["refused"] == packs * Pack.REFUSED
    assert ends == {
        "complete": 1 + packs * (Pack.CALLS + Pack.STREAMS - Pack.LEAVING),
        "client_gone": packs * Pack.LEAVING,
        "refused": packs * Pack.REFUSED,
    }
