"""Callers who mean harm: slow ones by the thousand, and floods of keys that are none. Others must hardly notice.

The server has a processor of its own and the attackers are niced, as they would be on machines of their own; the caller
whose times are measured shares the other processor with all else that runs here, so a measurement gets a second try.
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


MODES = {
    "slow heads": ["-H", "-i", "5", "-t", "POST", "-u", "{base}/v1/embeddings"],
    "slow bodies": ["-B", "-i", "5", "-s", "8192", "-u", "{base}/v1/embeddings"],
    "slow reading": ["-X", "-w", "1", "-y", "64", "-n", "5", "-z", "16", "-k", "3", "-u", "{base}/openapi.json"],
    "ranges": ["-R", "-a", "10", "-b", "3000", "-t", "GET", "-u", "{base}/openapi.json"],
}  # fmt: skip


@pytest.fixture
def slowhttptest() -> str:
    """The program. Without it the test fails: a promise that was not looked at is not shown."""
    program = shutil.which("slowhttptest")
    assert program is not None, "install Debian's package slowhttptest: apt-get install slowhttptest"
    return program


@pytest.mark.parametrize("mode", MODES)
def test_two_thousand_slow_connections_slow_nobody_else_down(
    server: LingpaiServer, slowhttptest: str, mode: str
):
    """slowhttptest's four modes. Its connections come within four seconds and stay as long as we let them."""
    command = [slowhttptest, "-c", str(ATTACKERS), "-r", "500", "-l", "30", "-p", "3"]
    command += [part.format(base=server.base) for part in MODES[mode]]
    before = server.resident_bytes()

    with Attackers(command):
        times = times_ms(server, seconds=8)
        if p99(times) >= MOST_MS:
            times = times_ms(server, seconds=8)
        connections = server.metric("lingpai_connections")

    print(
        f"{mode}: p50 {times[len(times) // 2]:.1f} ms, p99 {p99(times):.1f} ms, {connections:.0f} connections"
    )
    assert p99(times) < MOST_MS
    assert server.resident_bytes() - before < MOST_GROWTH


def test_slow_heads_are_cut_off(server: LingpaiServer, slowhttptest: str):
    """Ten seconds for a head, and a look every few: after twenty none of two thousand is left."""
    command = [slowhttptest, "-H", "-c", str(ATTACKERS), "-r", "2000", "-i", "5", "-l", "60", "-p", "3"]

    with Attackers([*command, "-u", f"{server.base}/v1/embeddings"]):
        deadline = time.monotonic() + 10
        while server.metric("lingpai_connections") < ATTACKERS * 0.9 and time.monotonic() < deadline:
            time.sleep(0.2)
        most = server.metric("lingpai_connections")
        time.sleep(15)
        left = server.metric("lingpai_connections")

    assert most > ATTACKERS * 0.9
    assert left < ATTACKERS * 0.05


def test_flood_of_garbage_keys_costs_no_look_up_and_slows_nobody_down(server: LingpaiServer):
    """The keys are well formed, with right checksums, and all different."""
    times_ms(server, seconds=0.2)  # the victim's key is in memory from here on
    before, memory = server.metric("lingpai_key_lookups_total"), server.resident_bytes()
    commands = [
        [sys.executable, "-m", "tests.e2e.garbage_flood", str(server.port), "10", way]
        for way in ("kept", "piled")
    ]

    with Attackers(*commands) as attackers:
        time.sleep(1)
        times = times_ms(server, seconds=6)
        if p99(times) >= MOST_MS:
            times = times_ms(server, seconds=6)
        said = attackers.said()

    print(f"keys sent, answers: {said}; p50 {times[len(times) // 2]:.1f} ms, p99 {p99(times):.1f} ms")
    assert server.metric("lingpai_key_lookups_total") == before
    assert p99(times) < MOST_MS
    assert sum(int(text.split()[0]) for text in said) > 10_000
    assert server.resident_bytes() - memory < MOST_GROWTH
