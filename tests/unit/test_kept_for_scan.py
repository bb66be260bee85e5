"""What a server shows is kept for the scan for secrets; one that is well and does not show it fails its test."""

import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.e2e.lingpai_server import LingpaiServer

FULL = (503, b'{"error":{"code":"storage_unavailable","message":"The disk is full."}}')
CUT_OFF = (200, None)


class Stage(socketserver.ThreadingUnixStreamServer):
    """An admin.sock whose answers are told by the beginning of their path; all others are fine."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.answers: dict[str, tuple[int, bytes | None]] = {}

    def answer_to(self, path: str) -> tuple[int, bytes | None]:
        return next((each for start, each in self.answers.items() if path.startswith(start)), (200, b"shown"))


class Handler(BaseHTTPRequestHandler):
    server: Stage

    def do_GET(self) -> None:
        status, body = self.server.answer_to(self.path)
        if body is None:
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[LingpaiServer]:
    """One whose process runs; the folder is a short one, for the socket."""
    with tempfile.TemporaryDirectory(prefix="lp-") as folder:
        server = LingpaiServer(Path(folder))
        server.data.mkdir()
        server.process = subprocess.Popen(["sleep", "60"])
        yield server
        server.kill()


@pytest.fixture
def stage(server: LingpaiServer) -> Iterator[Stage]:
    with Stage(server.data / "admin.sock") as stage:
        thread = threading.Thread(target=stage.serve_forever, args=(0.01,))
        thread.start()
        yield stage
        stage.shutdown()
        thread.join()


def kept(server: LingpaiServer) -> set[str]:
    """The names of what was kept and has something in it."""
    return {
        path.name.partition("-")[2] for path in (server.folder / "shown").glob("*") if path.stat().st_size
    }


def test_everything_is_kept(server: LingpaiServer, stage: Stage):
    server.keep_what_it_shows()

    assert kept(server) == {
        "audit.csv", "audit.json", "metrics.txt", "requests.csv", "requests.jsonl", "usage.csv", "usage.jsonl",
        "clients.json", "events.json", "keys.json", "limits.json", "models.json", "projects.json", "requests.json",
        "secrets.json", "sessions.json", "targets.json", "tokens.json", "usage.json", "users.json",
    }  # fmt: skip


def test_metrics_alone_are_kept_before_a_kill(server: LingpaiServer, stage: Stage):
    server.keep_metrics()

    assert kept(server) == {"metrics.txt"}


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/v1/usage/export", "/api/v1/requests/export", "/api/v1/keys"]
)
@pytest.mark.parametrize("answer", [(404, b"no"), (400, b"no"), (503, b"no"), CUT_OFF])
def test_what_a_server_that_is_well_does_not_show_fails_the_test(
    server: LingpaiServer, stage: Stage, path: str, answer: tuple[int, bytes | None]
):
    stage.answers[path] = answer

    with pytest.raises(AssertionError, match=path):
        server.keep_what_it_shows()


def test_a_full_disk_is_a_reason_to_show_no_usage(server: LingpaiServer, stage: Stage):
    stage.answers.update({"/api/v1/usage": FULL, "/api/v1/requests": FULL})

    server.keep_what_it_shows()

    assert {"metrics.txt", "keys.json"} <= kept(server)


@pytest.mark.parametrize("answer", [(503, b"stopping"), CUT_OFF])
def test_a_server_that_is_not_well_shows_nothing(
    server: LingpaiServer, stage: Stage, answer: tuple[int, bytes | None]
):
    stage.answers["/"] = answer

    server.keep_what_it_shows()

    assert kept(server) == set()


def test_a_server_that_is_gone_or_not_there_yet_shows_nothing(server: LingpaiServer, stage: Stage):
    server.kill()
    server.keep_what_it_shows()
    server.process = None
    server.keep_what_it_shows()

    assert kept(server) == set()


def test_a_server_without_a_socket_shows_nothing(server: LingpaiServer):
    server.keep_what_it_shows()

    assert kept(server) == set()
