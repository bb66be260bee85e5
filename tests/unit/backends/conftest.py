"""Real worker processes for the tests of this directory."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.e2e.stock_clients import listen
from tests.secrets_scan import SCAN


@pytest.fixture
def short_dir() -> Path:
    """A directory for sockets; pytest's own can be too deep for one. The scan for secrets deletes it."""
    path = Path(tempfile.mkdtemp(prefix="lp-"))
    SCAN.take(path)
    return path


@pytest.fixture(scope="session")
def session_dir() -> Path:
    path = Path(tempfile.mkdtemp(prefix="lp-"))
    SCAN.take(path)
    return path


@pytest.fixture(scope="session")
def write_app(session_dir: Path) -> Callable[[str, str], str]:
    """Writes a file of models and returns its path."""

    def write(name: str, text: str) -> str:
        path = session_dir / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@dataclass
class RunningWorker:
    """The runtime as it runs under a supervisor, reached over its socket."""

    client: httpx2.Client
    log: Path
    ready: dict

    def post(self, path: str, **fields) -> httpx2.Response:
        return self.client.post(path, json=fields)

    def events(self, path: str, **fields) -> list[str]:
        """The data of a stream's events."""
        text = self.client.post(path, json={**fields, "stream": True}).text
        return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]

    def text(self, path: str, **fields) -> str:
        """What a stream's pieces add up to."""
        *chunks, done = self.events(path, **fields)
        assert done == "[DONE]"
        choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
        return "".join(
            choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices
        )


@pytest.fixture(scope="session")
def serve(session_dir: Path) -> Iterator[Callable[[str], RunningWorker]]:
    """Starts the runtime for a target; everything started ends with the session of tests."""
    started: list[tuple[subprocess.Popen, httpx2.Client]] = []

    def start(target: str) -> RunningWorker:
        number = len(started)
        socket_path, log = session_dir / f"{number}.sock", session_dir / f"{number}.log"
        reader, writer = os.pipe()
        with log.open("wb") as output:
            options = ["--socket", str(socket_path), "--status-fd", str(writer)]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lingpai.backends.engines.python", *options, target],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        transport = httpx2.HTTPTransport(uds=str(socket_path))
        client = listen(httpx2.Client(transport=transport, base_url="http://worker"))
        started.append((process, client))
        with os.fdopen(reader) as lines:
            last = json.loads(next(line for line in lines if '"ready"' in line or '"error"' in line))
        return RunningWorker(client, log, last)

    yield start
    for process, client in started:
        client.close()
        process.stdin.close()
        process.wait(10)
