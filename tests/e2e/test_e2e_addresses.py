"""Shares of single addresses on a real server, in a network of its own: this machine's loopback addresses have none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import ROOT, LingpaiServer

HERE, ADA, BOB = "127.0.0.1", "192.0.2.2", "192.0.2.3"
# A network whose only interface has the addresses of the server and of both callers.
APART = (
    "unshare", "-rn", "sh", "-c",
    'ip link set lo up && for n in 1 2 3; do ip addr add 192.0.2.$n/24 dev lo; done && exec "$@"', "sh",
)  # fmt: skip
SLOW = """
import time
import lingpai as lp

@lp.model("acme/slow", task="generic")
def slow(seconds: float):
    time.sleep(seconds)
    return seconds
"""


@pytest.fixture(autouse=True)
def _networks_apart() -> None:
    """Containers may forbid it."""
    assert shutil.which("ip"), "this test needs ip (Debian's package iproute2)"
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network of its own can be made here (unshare -rn)")


def serve(make_server: MakeServer, folder: Path, setting: str) -> LingpaiServer:
    (folder / "slow.py").write_text(SLOW)
    config = f"[server]\n{setting}\n"
    return make_server(
        str(folder / "slow.py"), config=config, arguments=("--host", "0.0.0.0", "--insecure"), under=APART
    ).start()


def callers(server: LingpaiServer, what: str, *arguments: object) -> list[list[int]]:
    """What callers hear (callers_from.py)."""
    assert server.process is not None
    enter = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(server.process.pid)]
    program = [sys.executable, "-m", "tests.e2e.callers_from", what, str(server.port), *map(str, arguments)]
    outcome = subprocess.run(
        [*enter, *program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    answer: list[list[int]] = json.loads(outcome.stdout)
    return answer


def test_no_address_has_more_connections_than_its_share(make_server: MakeServer, tmp_path: Path):
    server = serve(make_server, tmp_path, "max_connections_per_address = 3")

    ada, bob, here, again = callers(server, "connections", 5, ADA, BOB, HERE)

    assert ada == bob == [200] * 3 + [429] * 2
    assert here == [200] * 5
    assert again == [200, 429, 200]
    assert server.stop() == 0


def test_no_address_has_more_calls_under_way_than_its_share(make_server: MakeServer, tmp_path: Path):
    server = serve(make_server, tmp_path, "max_calls_per_address = 2")

    ada, bob, here, afterwards = callers(server, "calls", 4, server.make_key("all"), ADA, BOB, HERE)

    assert ada == bob == [200] * 2 + [429] * 2
    assert here == [200] * 4
    assert afterwards == [200] * 3
    addresses = [record["client_address"] for record in server.records()]
    assert sorted(addresses) == [HERE] * 5 + [ADA] * 3 + [BOB] * 3
    assert server.stop() == 0
