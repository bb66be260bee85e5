"""A Lingpai server as a real process in a folder of its own, and the ways to talk to it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.e2e.raw_http import get
from tests.e2e.stock_clients import async_openai_client, openai_client
from tests.secrets_scan import ERROR_ANSWERS, SCAN, without_what_is_shown

ROOT = Path(__file__).parents[2]
_READY = re.compile(r"Address\s+(https?://\S+)/v1\s")
_FIRST_KEY = re.compile(r"sk-lp-\w+")
METRICS_TOKEN = "LINGPAI__SERVER__METRICS_TOKEN"
"""The variable for a server whose metrics need a token."""
# What a server shows its administrator, kept in a file each when it is stopped: none of it may hold a secret.
_BY = "by=key,client,user,project,model,task,day"
_SHOWN = {
    "metrics.txt": "/metrics",
    "audit.csv": "/api/v1/audit/export?format=csv",
    "requests.csv": "/api/v1/requests/export?format=csv",
    "requests.jsonl": "/api/v1/requests/export?format=jsonl",
    "usage.csv": f"/api/v1/usage/export?format=csv&{_BY}",
    "usage.jsonl": f"/api/v1/usage/export?format=jsonl&{_BY}",
    **{f"{name}.json": f"/api/v1/{name}" for name in (
        "audit", "clients", "events", "keys", "limits", "models", "projects", "requests", "secrets", "sessions", "targets",
        "tokens", "usage", "users",
    )},
}  # fmt: skip


class StartFailed(AssertionError):  # noqa: N818  it fails the test
    """The server did not come up; the message has all that it said."""


class LingpaiServer:
    """`lingpai serve TARGETS…` with its data in `folder`/data."""

    def __init__(
        self, folder: Path, *targets: str, config: str | None = None, environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (), data: Path | None = None, under: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """`under` is a command that runs the server, such as prlimit(1)."""
        self.folder = folder
        self.targets = targets
        self.arguments = arguments
        self.under = under
        self.data = data or folder / "data"
        self.environment = clean_environment(environment)
        self.key = ""
        self.base = ""
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        SCAN.watch(folder)
        SCAN.watch(self.data)
        SCAN.secrets.add_environment(environment or {})
        if config is not None:
            (folder / "lingpai.toml").write_text(config)

    # -- life

    def start(self, *, timeout: float = 30) -> "LingpaiServer":
        """Start and wait for the address. Raises StartFailed."""
        self.launch()
        deadline = time.monotonic() + timeout
        while (
            not (found := _READY.search(self.stdout_of_this_run)) or "Ctrl-C" not in self.stdout_of_this_run
        ):
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"{self.stdout}\n--- stderr:\n{self.stderr}")
            time.sleep(0.01)
        self.base = found[1]
        if first := _FIRST_KEY.search(self.stdout_of_this_run):
            self.key = first[0]
            SCAN.secrets.add_credentials(self.key)
        return self

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        out_path = self.folder / "stdout.txt"
        self._out_start = out_path.stat().st_size if out_path.exists() else 0
        with out_path.open("ab") as out, (self.folder / "stderr.txt").open("ab") as err:
            self.process = subprocess.Popen(
                [
                    *self.under, sys.executable, "-m", "lingpai.cli", "serve", *self.targets,
                    "--data", str(self.data), *self._port_arguments(), *self.arguments,
                ],
                cwd=self.folder, env=self.environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _port_arguments(self) -> tuple[str, ...]:
        return () if "--port" in self.arguments else ("--port", "0")

    def stop(self, *, timeout: float = 20) -> int:
        """SIGTERM and wait; the exit code."""
        if self.process is None:
            return 0
        self.keep_what_it_shows()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def keep_what_it_shows(self, *, timeout: float = 60) -> None:
        """Write metrics, exports and lists into `folder`/shown, for the scan for secrets.

        A server that is gone, stuck or stopping has none. One that says it is alive must show all of them, but may say of
        usage that its disk is full; else the test fails.
        """
        if self._is_alive():
            for name, path in _SHOWN.items():
                self._keep(name, path, timeout)

    def keep_metrics(self) -> None:
        """Keep the metrics alone, which wait for nothing: for a server that is about to be killed."""
        self._keep("metrics.txt", _SHOWN["metrics.txt"], 10)

    def _keep(self, name: str, path: str, timeout: float) -> None:
        assert self.process is not None
        shown = self.folder / "shown"
        shown.mkdir(exist_ok=True)
        file = shown / f"{self.process.pid}-{name}"
        try:
            token = self.environment.get(METRICS_TOKEN) if path == "/metrics" else None
            with self.answer("GET", path, token=token, timeout=timeout) as answer, file.open("wb") as copy:
                shutil.copyfileobj(answer, copy)
        except (OSError, http.client.HTTPException):
            assert not self._is_alive(), f"no answer to GET {path}"
            return
        if answer.status != 200:
            said = file.read_bytes()
            is_full = answer.status == 503 and b'"storage_unavailable"' in said
            assert is_full or not self._is_alive(), f"GET {path}: {answer.status} {said!r}"

    def _is_alive(self) -> bool:
        """Whether the process runs and says that it is well."""
        if self.process is None or self.process.poll() is not None or not (self.data / "admin.sock").exists():
            return False
        try:
            return self._ask("GET", "/healthz", timeout=10)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout.txt").read_text()

    @property
    def stdout_of_this_run(self) -> str:
        return (self.folder / "stdout.txt").read_bytes()[self._out_start :].decode()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    # -- ways to talk to it

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    @property
    def v1(self) -> str:
        return f"{self.base}/v1"

    def openai(self, key: str | None = None, **options: Any) -> OpenAI:
        """The stock SDK."""
        return openai_client(**self._sdk_options(key, options))

    def async_openai(self, key: str | None = None, **options: Any) -> AsyncOpenAI:
        return async_openai_client(**self._sdk_options(key, options))

    def _sdk_options(self, key: str | None, options: dict[str, Any]) -> dict[str, Any]:
        SCAN.secrets.add_credentials(key or "")
        return {"base_url": self.v1, "api_key": key or self.key, "max_retries": 0, **options}

    def admin(self, method: str, path: str, fields: Any = None) -> Any:
        """A management call over admin.sock; the answer's JSON. Fails the test on an error."""
        status, answer = self.try_admin(method, path, fields)
        assert status < 300, (status, answer)
        return answer

    def try_admin(self, method: str, path: str, fields: Any = None) -> tuple[int, Any]:
        status, text = self._ask(method, path, fields)
        SCAN.secrets.add_credentials(text)
        if method != "POST" or status >= 400:  # what POST makes may be a key, which is shown once
            place = f"{ERROR_ANSWERS if status >= 400 else ''}{status} to {method} {path.partition('?')[0]}"
            SCAN.note(f"{place} of {self.folder}", text)
        return status, json.loads(text) if text else None

    def _ask(self, method: str, path: str, fields: Any = None, *, timeout: float = 30) -> tuple[int, bytes]:
        with self.answer(method, path, fields, timeout=timeout) as answer:
            return answer.status, answer.read()

    @contextmanager
    def answer(
        self, method: str, path: str, fields: Any = None, *, token: str | None = None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a call over admin.sock, its body yet to be read."""
        connection = _UnixConnection(self.data / "admin.sock", timeout)
        try:
            body = None if fields is None else json.dumps(fields)
            headers = {"content-type": "application/json"} if body else {}
            if token is not None:
                headers["authorization"] = f"Bearer {token}"
            connection.request(method, path, body, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def make_key(self, name: str, **fields: Any) -> str:
        """A new key; without limits unless they are given."""
        made = self.admin("POST", "/api/v1/keys", {"name": name, "limits": ["none"], **fields})
        return str(made["key"])

    def cli(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
        at_data: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """`lingpai ARGUMENTS…`, on this server's data directory unless told otherwise."""
        place = (
            {"LINGPAI_DATA": str(self.data)} if at_data else {"LINGPAI_DATA": str(self.folder / "nowhere")}
        )
        return run_cli(
            *arguments,
            environment={**self.environment, **place, **(environment or {})},
            stdin=stdin,
            cwd=self.folder,
        )

    def cli_json(self, *arguments: str) -> Any:
        outcome = self.cli(*arguments, "--json")
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    def metric(self, name: str) -> float:
        """A figure without labels of `/metrics`."""
        lines = get(self.port, "/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def resident_bytes(self) -> int:
        """Memory of the server's process."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def records(self, where: str = "1", *parameters: Any) -> list[dict[str, Any]]:
        """Rows of the usage table, once everything answered until now has reached it."""
        self.admin("GET", "/api/v1/usage")  # answers when everything is loaded
        return read_records(self.data, where, *parameters)

    def record_of(self, request_id: str, *, wait_s: float = 5) -> dict[str, Any]:
        """The one usage record of this call; waits for it, because a call that is cut off ends a little later."""
        deadline = time.monotonic() + wait_s
        while not (rows := self.records("request_id = ?", request_id)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(rows) == 1, rows
        return rows[0]


def read_records(data: Path, where: str = "1", *parameters: Any) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{data}/lingpai.db?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [
            dict(row) for row in connection.execute(f"SELECT * FROM usage_records WHERE {where}", parameters)
        ]
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a machine on which nothing of Lingpai is set up."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LINGPAI", "OLLAMA", "OPENAI"))
        and name.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "TZ": "UTC", **(more or {})}


def run_cli(
    *arguments: str, environment: Mapping[str, str], cwd: Path, stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    outcome = subprocess.run(
        [sys.executable, "-m", "lingpai.cli", *arguments],
        env=dict(environment), cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    _note_for_scan(arguments, stdin, outcome)
    return outcome


def _note_for_scan(arguments: Sequence[str], stdin: str, outcome: subprocess.CompletedProcess[str]) -> None:
    command = " ".join(arguments[:2])
    SCAN.secrets.add_prompts(" ".join((*arguments, stdin)).encode())
    SCAN.secrets.add_credentials(outcome.stdout)
    if "--password-stdin" in arguments:
        SCAN.secrets.add("password", stdin.strip())
    if "--api-key-stdin" in arguments:
        SCAN.secrets.add("provider key", stdin.strip())
    SCAN.note(f"stderr of lingpai {command}", outcome.stderr)
    SCAN.note(f"stdout of lingpai {command}", without_what_is_shown(arguments, stdin, outcome.stdout))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        folder = os.open(
            self._path.parent, os.O_PATH | os.O_DIRECTORY
        )  # the path may be too long for an address
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)
