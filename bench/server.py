"""Lingpai as it is installed: `lingpai serve` in front of an upstream, asked through its own command line."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.certificate import Certificate
from bench.processes import BenchError, Process, clean_environment, free_port, running, wait_for_answer
from bench.run import Run
from lingpai.metering.segments import Position, journal_end

COMMAND: Final = Path(sys.executable).with_name("lingpai")

# Never reached: both kinds of limit are checked for every call, as in earnest.
LIMITS: Final = ("1000000000/day@Asia/Shanghai", "1000000000/1s")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and its data directory."""

    process: Process
    port: int
    data: Path

    def create_key(self, name: str) -> str:
        """A new key with a calendar limit and a smooth rate, both too large to refuse anything."""
        limits = [part for limit in LIMITS for part in ("--limit", limit)]
        return self._ask("keys", "create", name, *limits).strip()

    def reported_requests(self, key_name: str) -> int:
        """How many requests of this key the usage report shows. The report waits for the ingester itself."""
        rows = json.loads(self._ask("usage", "--since", "1d", "--key", key_name, "--json"))
        return sum(row["requests"] for row in rows)

    def loaded_records(self) -> int:
        """How many records the ingester has put into the database so far."""
        found: int = self._query("SELECT coalesce(sum(requests + refused), 0) FROM usage_rollups")[0]
        return found

    def stored_tokens(self) -> int:
        """How many access tokens are in the database."""
        found: int = self._query("SELECT count(*) FROM access_tokens")[0]
        return found

    def wait_until_drained(self, *, timeout: float = 60.0) -> None:
        """Wait until the ingester has come to the journal's end. Raises BenchError after `timeout` seconds."""
        end = journal_end(self.data / "journal")
        deadline = time.monotonic() + timeout
        while self._loaded_position() < end:
            if time.monotonic() > deadline:
                raise BenchError(f"the ingester has not finished after {timeout:g} s")
            time.sleep(0.005)

    def _loaded_position(self) -> Position:
        found: Position = self._query('SELECT max(segment), "offset" FROM journal_position')
        return found

    def _query(self, statement: str) -> Any:
        uri = f"{(self.data / 'lingpai.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchone()

    def _ask(self, *arguments: str) -> str:
        answer = subprocess.run(
            [COMMAND, *arguments, "--data", self.data],
            env=clean_environment(),
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise BenchError(f"lingpai {arguments[0]} failed: {answer.stderr.strip()}")
        return answer.stdout


@contextmanager
def lingpai(
    run: Run, *targets: str, data: Path | None = None, certificate: Certificate | None = None
) -> Iterator[Server]:
    """A server on `targets` on the server's processor, ready for calls; with a new data directory unless `data` is given.

    With a certificate it speaks TLS.
    """
    tls = None if certificate is None else certificate.client_context()
    with starting(run, *targets, data=data, certificate=certificate) as server:
        wait_for_answer(server.process, server.port, "/readyz", tls=tls)
        yield server


@contextmanager
def starting(
    run: Run, *targets: str, data: Path | None = None, certificate: Certificate | None = None
) -> Iterator[Server]:
    """The same, but not waited for."""
    folder = run.new_folder("lingpai")
    data = data or folder / "data"
    port = free_port()
    command: tuple[str | Path, ...] = (COMMAND, "serve", *targets, "--data", data, "--port", str(port))
    if certificate is not None:
        command += ("--tls-cert", certificate.path, "--tls-key", certificate.key_path)
    log = folder / f"{folder.name}.log"
    with running(*command, cpu=run.cpus.server, log=log, folder=folder) as process:
        yield Server(process, port, data)


def address(port: int) -> str:
    """The address of an OpenAI-compatible upstream on this machine."""
    return f"http://127.0.0.1:{port}/v1"
