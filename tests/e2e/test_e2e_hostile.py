"""Callers who mean harm: slow ones by the thousand, and floods of keys that are none. Others must hardly notice.

The server has a processor of its own and the attackers are niced, as they would be on machines of their own; the caller
whose times are measured shares the other processor with all else that runs here. So a time that is missed is measured
again, under a new attack: a server that is really slowed down misses it every time.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.e2e.lingpai_server import ROOT, LingpaiServer
from tests.e2e.raw_http import RawConnection, get, post_bytes

pytestmark = pytest.mark.slow

ATTACKERS = 2000
MOST_MS = 50.0
ATTEMPTS = 4
KEYS_PER_S = 100_000
MOST_GROWTH = 150_000_000
REQUEST = {"model": "lingpai/hashing-embedding", "input": "Hello"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LingpaiServer]:
    """The demonstration models, on a processor of their own where there are two."""
    server = LingpaiServer(tmp_path_factory.mktemp("hostile")).start()
    server.key = server.make_key("victim")
    assert server.process is not None
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        os.sched_setaffinity(server.process.pid, {processors[0]})
    get(server.port, "/openapi.json")  # made when it is first asked for
    yield server
    assert server.stop() == 0


def times_ms(server: LingpaiServer, *, seconds: float) -> list[float]:
    """How long calls take meanwhile, sorted: some on a kept connection, some on one of their own."""
    request = post_bytes("/v1/embeddings", REQUEST, key=server.key)
    deadline, taken = time.monotonic() + seconds, []
    with RawConnection(server.port) as kept:
        while (began := time.perf_counter()) and time.monotonic() < deadline:
            if len(taken) % 4:
                kept.send(request)
                status = kept.read_answer().status
            else:
                with RawConnection(server.port) as fresh:
                    fresh.send(request)
                    status = fresh.read_answer().status
            assert status == 200
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(0.003)
    return sorted(taken)


def p99(times: list[float]) -> float:
    return times[int(len(times) * 0.99)]


def wait_for_connections(server: LingpaiServer, count: float, *, seconds: float) -> float:
    """Wait until so many are open, or the time is over; how many they are."""
    deadline = time.monotonic() + seconds
    while (now := server.metric("lingpai_connections")) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return now


class Attackers:
    """Processes that attack; they end with the block."""

    def __init__(self, *commands: list[str]) -> None:
        self._commands = commands
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Attackers":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._processes = [
            subprocess.Popen(
                ["nice", "-n", "19", *command], cwd=ROOT, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            )
            for command in self._commands
        ]  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def said(self) -> list[str]:
        """What each has printed; waits for their ends."""
        return [process.communicate(timeout=60)[0] for process in self._processes]


PROGRAM = "slowhttptest"
COMMON = ["-c", str(ATTACKERS), "-r", "1000", "-l", "30", "-p", "3"]
AUTHORIZED = "application/json\r\nAuthorization: Bearer {key}"  # what goes behind "Content-Type: "

# Slowhttptest's four modes. Whoever sends a body slowly has a key: without one, all are turned away at the head. Who
# asks for ranges gets a whole answer at once, so of these no connection stays.
MODES = {
    "slow heads": ["-H", "-i", "5", "-t", "POST", "-u", "{base}/v1/embeddings"],
    "slow bodies": ["-B", "-i", "5", "-s", "8192", "-f", AUTHORIZED, "-u", "{base}/v1/embeddings"],
    "slow reading": ["-X", "-w", "1", "-y", "64", "-n", "5", "-z", "16", "-k", "3", "-u", "{base}/openapi.json"],
    "ranges": ["-R", "-a", "10", "-b", "3000", "-t", "GET", "-u", "{base}/openapi.json"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _program() -> None:
    """Without it a test fails: a promise that was not looked at is not shown."""
    assert shutil.which(PROGRAM), f"install Debian's package {PROGRAM}: apt-get install {PROGRAM}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_two_thousand_slow_connections_slow_nobody_else_down(server: LingpaiServer, mode: str):
    """They come within two seconds, and are there from the first measured call to the last."""
    command = [PROGRAM, *COMMON, *(part.format(base=server.base, key=server.key) for part in MODES[mode])]
    stays = mode != "ranges"
    before = server.resident_bytes()

    for attempt in range(ATTEMPTS):
        calls = server.metric("lingpai_connections_seen_total")
        with Attackers(command):
            most = wait_for_connections(server, ATTACKERS * 0.95 if stays else 0, seconds=8)
            times = times_ms(server, seconds=5)
            left = server.metric("lingpai_connections")
        made = server.metric("lingpai_connections_seen_total") - calls
        print(
            f"{mode}, attempt {attempt + 1}: p50 {times[len(times) // 2]:.1f} ms, p99 {p99(times):.1f} ms,"
            f" {most:.0f} connections at first, {left:.0f} at last, {made:.0f} in all"
        )
        assert made >= ATTACKERS * 0.95
        if stays:
            assert most >= ATTACKERS * 0.95
        if p99(times) < MOST_MS and (left >= ATTACKERS * 0.9 or not stays):
            break

    assert p99(times) < MOST_MS
    assert left >= ATTACKERS * 0.9 or not stays
    assert server.resident_bytes() - before < MOST_GROWTH


def test_owasp_api4_slow_heads_are_cut_off(server: LingpaiServer):
    """Ten seconds for a head, and a look every few: after twenty none of two thousand is left."""
    command = [PROGRAM, "-H", "-c", str(ATTACKERS), "-r", "2000", "-i", "5", "-l", "60", "-p", "3"]

    before = server.metric("lingpai_connections_seen_total")

    with Attackers([*command, "-u", f"{server.base}/v1/embeddings"]):
        deadline = time.monotonic() + 30
        while (seen := server.metric("lingpai_connections_seen_total") - before) < ATTACKERS * 0.95:
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)
        time.sleep(15)
        left = server.metric("lingpai_connections")

    assert left < ATTACKERS * 0.05


@pytest.mark.timeout(300)
def test_owasp_api2_a_flood_of_garbage_keys_costs_no_look_up_and_slows_nobody_down(server: LingpaiServer):
    """Over 100,000 a second: well formed, with right checksums, all different."""
    times_ms(server, seconds=0.2)  # the victim's key is in memory from here on
    before, memory = server.metric("lingpai_key_lookups_total"), server.resident_bytes()
    commands = [
        [sys.executable, "-m", "tests.e2e.garbage_flood", str(server.port), "7", way]
        for way in ("kept", "piled", "poured")
    ]

    for attempt in range(ATTEMPTS):
        with Attackers(*commands) as attackers:
            time.sleep(1.5)
            times = times_ms(server, seconds=4)
            said = [text.split() for text in attackers.said()]
        per_s = sum(int(sent) / float(seconds) for sent, _, seconds in said)
        print(
            f"attempt {attempt + 1}: {per_s:,.0f} keys a second (keys, answers, seconds: {said});"
            f" p50 {times[len(times) // 2]:.1f} ms, p99 {p99(times):.1f} ms"
        )
        if p99(times) < MOST_MS and per_s > KEYS_PER_S:
            break

    assert server.metric("lingpai_key_lookups_total") == before
    assert p99(times) < MOST_MS
    assert per_s > KEYS_PER_S
    assert all(int(answered) for _, answered, _ in said[:2]), "those who listen are told"
    assert server.resident_bytes() - memory < MOST_GROWTH
