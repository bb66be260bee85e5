"""The command line as a real process, against a fake of the management API on a real socket."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.fakes.management_api import FakeApi, serve

Cli = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[3]
SETTINGS = ("LINGPAI_SERVER", "LINGPAI_API_KEY", "LINGPAI_DATA", "NO_COLOR", "FORCE_COLOR", "TZ", "COLUMNS")


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where nothing is set up, in a time zone that does not move."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {
        **clean,
        "COLUMNS": "120",
        "LINGPAI_DATA": str(tmp_path / "data"),
        "TZ": "Asia/Shanghai",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def lingpai(surroundings: dict[str, str], tmp_path: Path) -> Cli:
    """Run `lingpai ARGUMENTS…` and wait for it."""

    def run(
        *arguments: str, environment: Mapping[str, str] | None = None, stdin: str | bytes = ""
    ) -> subprocess.CompletedProcess[str]:
        outcome = subprocess.run(
            [sys.executable, "-m", "lingpai.cli", *arguments],
            env={**surroundings, **(environment or {})},
            cwd=tmp_path,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return subprocess.CompletedProcess(
            outcome.args, outcome.returncode, outcome.stdout.decode(), outcome.stderr.decode()
        )

    return run


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    """A server on DATA/admin.sock, whose caller is the local administrator."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    with serve(FakeApi(local_administrator=True), socket=directory / "admin.sock") as fake:
        yield fake


@pytest.fixture
def remote() -> Iterator[FakeApi]:
    """A server on a port, which wants a key."""
    with serve(FakeApi(local_administrator=False)) as fake:
        yield fake


@pytest.fixture
def signed_in(remote: FakeApi) -> dict[str, str]:
    """The environment of somebody who uses `remote` with a good key."""
    return {"LINGPAI_SERVER": remote.server, "LINGPAI_API_KEY": remote.accepted_key}
