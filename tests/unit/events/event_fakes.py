"""What the tests of events have in common: a clock, owners, and a receiver of webhooks on a real socket."""

import base64
import contextlib
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lingpai.events.interfaces import Subject

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()

HANG = "hang"
BREAK_OFF = "break off"
FLOOD = "flood"
"""200, and a body without end."""


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Owners(dict[Subject, str]):
    """Knows whose subjects are whose; `roles` are the projects of each user."""

    roles: Mapping[str, Collection[str]] = {}

    def owners(self, subjects: Collection[Subject]) -> Mapping[Subject, str]:
        return {subject: self[subject] for subject in subjects if subject in self}

    def projects(self, user_id: str) -> Collection[str]:
        return self.roles.get(user_id, ())


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Answers as it was told, the last behaviour for ever: a status, (status, headers), HANG, BREAK_OFF or FLOOD."""

    def __init__(self, behaviours: Sequence[Any]) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        self.flooded = 0
        self._behaviours = list(behaviours)
        self._now = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=part-of-the-address"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.received.append(Received(handler.path, headers, body))
            behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._behave(handler, behaviour)
        finally:
            with self._lock:
                self._now -= 1

    def _behave(self, handler: BaseHTTPRequestHandler, behaviour: Any) -> None:
        if behaviour == HANG:
            self._released.wait(10)
        if behaviour in (HANG, BREAK_OFF):
            handler.close_connection = True
            return
        if behaviour == FLOOD:
            self._flood(handler)
            return
        status, more = behaviour if isinstance(behaviour, tuple) else (behaviour, {})
        body = b"words of the receiver that belong in no log"
        handler.send_response(status)
        for name, value in {**more, "content-length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _flood(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not self._released.is_set():
                self.flooded += handler.wfile.write(b"x" * 65_536)


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            receiver.serve(self)

        do_POST = do_GET = handle_one  # noqa: N815  the base class looks for them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler
