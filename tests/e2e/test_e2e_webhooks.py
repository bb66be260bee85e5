"""Events on their way to a receiver: a real one, which verifies by the specification alone and is away for a while."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer, StartFailed, free_port
from tests.e2e.raw_http import chat, get, post
from tests.e2e.waiting import wait_until
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
MODEL_FILE = """
import lingpai as lp


@lp.model("acme/shout", task="text-generation")
def shout(prompt: str) -> str:
    return prompt.upper()
"""


class Site:
    """Something that answers on a port of its own, can go away, and come back."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.port = free_port()
        self._handler = handler
        self._server: ThreadingHTTPServer | None = None

    def open(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Receiver(Site):
    """Keeps what is genuine, by `webhook-id`, and counts what is not."""

    def __init__(self) -> None:
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        self.messages: dict[str, dict[str, Any]] = {}
        self.forged = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.is_genuine(self.headers, body):
                    receiver.messages[self.headers["webhook-id"]] = json.loads(body)
                else:
                    receiver.forged += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(Handler)

    def is_genuine(self, headers: Any, body: bytes) -> bool:
        """HMAC-SHA256 of id.timestamp.payload in base64, within five minutes (Standard Webhooks 1.0.0)."""
        key = base64.b64decode(self.secret[len("whsec_") :])
        signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        is_now = abs(time.time() - int(headers["webhook-timestamp"])) < 300
        return is_now and expected in headers["webhook-signature"].split()

    def wait_for(self, count: int, *, seconds: float = 15) -> list[dict[str, Any]]:
        """The messages in the order in which they happened, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"{len(self.messages)} of {count} messages: {self.messages}"
            time.sleep(0.02)
        return sorted(self.messages.values(), key=lambda message: message["timestamp"])

    def config(self, *types: str) -> str:
        return f"""
[[events.webhooks]]
url = "http://127.0.0.1:{self.port}/lingpai"
secret_env = "HOOK_SECRET"
types = {json.dumps(types)}
"""

    @property
    def environment(self) -> dict[str, str]:
        return {"HOOK_SECRET": self.secret}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.open()
    yield receiver
    receiver.close()


def calls(server: LingpaiServer, key: str, count: int) -> list[int]:
    return [post(server.port, CHAT, chat(), key=key).status for _ in range(count)]


def percents(messages: list[dict[str, Any]]) -> list[int]:
    return sorted(message["data"]["percent"] for message in messages)


# -- thresholds


def test_each_threshold_is_told_once_over_kills_and_restarts(
    make_server: MakeServer, engine: FakeEngine, receiver: Receiver
):
    """Also when the server is killed the moment after the call that reached it, and no further call is admitted."""
    server = make_server(
        engine.url, config=receiver.config("limit.threshold"), environment=receiver.environment
    ).start()
    key = server.make_key("ci", limits=["10/day@Asia/Shanghai"])

    def restart() -> None:
        server.kill()
        server.start()

    first = calls(server, key, 8)
    restart()
    second = calls(server, key, 2)
    restart()
    third = calls(server, key, 1)
    messages = receiver.wait_for(2)
    restart()
    calls(server, key, 2)
    time.sleep(2)

    assert (first, second, third) == ([200] * 8, [200] * 2, [429])
    assert (percents(list(receiver.messages.values())), receiver.forged) == ([80, 100], 0)
    assert len(server.cli_json("events", "list", "--type", "limit.threshold")) == 2
    for message in messages:
        data = message["data"]
        assert message["type"] == "limit.threshold"
        assert (data["subject"], data["label"], data["limit"]) == ("key", "key `ci`", "10/day@Asia/Shanghai")
        assert (data["unit"], data["amount"]) == ("requests", 10)
        assert data["window_end"].endswith("T16:00:00Z")


def test_thresholds_of_tokens_and_money_are_told_in_their_units(
    make_server: MakeServer, engine: FakeEngine, receiver: Receiver
):
    """Amounts of money are decimal texts; what is only reserved is not told of."""
    models = f"""
[limits]
warn_at = [50]
[[models]]
target = "{engine.url}"
price = {{ input = "2.5", output = "10", currency = "USD" }}
"""
    server = make_server(config=models + receiver.config(), environment=receiver.environment).start()
    server.admin("POST", "/api/v1/users", {"name": "ada", "limits": ["0.0002 USD/month"]})
    key = server.make_key("app", user="ada", limits=["35 tokens/day"])

    statuses = [post(server.port, CHAT, chat("Hi", max_tokens=5), key=key).status for _ in range(2)]
    tokens, money = sorted(receiver.wait_for(2), key=lambda message: message["data"]["unit"], reverse=True)

    assert statuses == [200, 200]
    assert [tokens["data"][name] for name in ("subject", "unit", "percent", "used", "amount")] == [
        "key", "tokens", 50, 18, 35,
    ]  # fmt: skip
    assert [money["data"][name] for name in ("subject", "unit", "percent", "used", "amount")] == [
        "user", "USD", 50, "0.000105", "0.0002",
    ]  # fmt: skip
    assert "0.000105 of 0.0002" in money["data"]["message"]


def test_owners_see_events_of_their_own_keys_only(make_server: MakeServer, engine: FakeEngine):
    server = make_server(engine.url).start()
    scopes = ["model:inference", "events:read"]
    for name in ("alice", "bob"):
        server.admin("POST", "/api/v1/users", {"name": name, "limits": ["none"]})
    keys = {
        name: server.make_key(name, user=name, limits=["1/day"], scopes=scopes) for name in ("alice", "bob")
    }
    for key in keys.values():
        calls(server, key, 1)
    wait_until(lambda: len(server.cli_json("events", "list")) == 4)

    seen = get(server.port, "/api/v1/events", key=keys["alice"]).json["data"]

    assert [event["data"]["label"] for event in seen] == ["key `alice`"] * 2


# -- receivers


def test_a_receiver_that_was_away_gets_what_it_missed(
    make_server: MakeServer, engine: FakeEngine, receiver: Receiver
):
    """After five seconds it is tried again, over a restart too; the list of events says how often."""
    receiver.close()
    server = make_server(engine.url, config=receiver.config(), environment=receiver.environment).start()
    calls(server, server.make_key("ci", limits=["1/day"]), 1)
    wait_until(lambda: [delivery["attempts"] >= 1 for delivery in deliveries(server)] == [True] * 2)
    assert server.stop() == 0
    receiver.open()
    server.start()

    messages = receiver.wait_for(2)
    wait_until(lambda: {delivery["state"] for delivery in deliveries(server)} == {"delivered"})

    assert percents(messages) == [80, 100]
    assert [delivery["attempts"] >= 2 for delivery in deliveries(server)] == [True] * 2


def deliveries(server: LingpaiServer) -> list[dict[str, Any]]:
    return [delivery for event in server.cli_json("events", "list") for delivery in event["webhooks"]]


def test_a_webhook_can_be_tried_out(make_server: MakeServer, receiver: Receiver):
    server = make_server(config=receiver.config(), environment=receiver.environment).start()

    works = server.cli("events", "test-webhook")
    receiver.close()
    fails = server.cli("events", "test-webhook")

    (message,) = receiver.wait_for(1)
    assert message["type"] == "webhook.test"
    assert works.returncode == 0
    assert fails.returncode == 1
    assert "cannot connect" in fails.stdout


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "it is empty"),
        ("", "it is empty"),
        ("whsec_", "it has 0 bytes"),
        (f"whsec_{base64.b64encode(b'short-canary-9b1f').decode()}", "24 to 64 are needed"),
        ("just-a-password-canary-4c", "does not begin with whsec_"),
    ],
)
def test_a_secret_that_anybody_could_guess_stops_the_start(
    make_server: MakeServer, receiver: Receiver, secret: str | None, why: str
):
    """The message names the setting and the variable, and shows nothing of the secret."""
    environment = {} if secret is None else {"HOOK_SECRET": secret}
    server = make_server(config=receiver.config(), environment=environment)

    with pytest.raises(StartFailed) as failed:
        server.start()

    message = str(failed.value)
    assert "`events.webhooks[0].secret_env`" in message
    assert "HOOK_SECRET" in message
    assert why in message
    assert "Traceback" not in message
    assert not secret or secret == "whsec_" or secret not in message


# -- backends


class ModelList(BaseHTTPRequestHandler):
    """An engine that can list its one model."""

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [{"id": "far/chat", "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_an_engine_that_goes_away_and_comes_back_is_told_of(make_server: MakeServer, receiver: Receiver):
    """Noticed by the first call that gets no connection, once however many follow."""
    site = Site(ModelList)
    site.open()
    server = make_server(
        f"http://127.0.0.1:{site.port}/v1",
        config=receiver.config("backend.down", "backend.up"),
        environment=receiver.environment,
    ).start()
    key = server.make_key("app")

    site.close()
    statuses = [post(server.port, CHAT, chat(model="far/chat"), key=key).status for _ in range(5)]
    (down,) = receiver.wait_for(1)
    site.open()
    _, up = receiver.wait_for(2)
    site.close()

    assert statuses == [503] * 5
    assert (down["type"], down["data"]["backend"]) == ("backend.down", f"127.0.0.1:{site.port}")
    assert "Nothing answers at" in down["data"]["reason"]
    assert (up["type"], up["data"]["backend"]) == ("backend.up", f"127.0.0.1:{site.port}")
    assert up["data"]["down_s"] >= 1


def test_a_worker_that_dies_and_is_restarted_is_told_of(
    make_server: MakeServer, receiver: Receiver, tmp_path: Path
):
    (tmp_path / "app.py").write_text(MODEL_FILE)
    server = make_server(
        str(tmp_path / "app.py"),
        config=receiver.config("backend.down", "backend.up"),
        environment=receiver.environment,
    ).start()

    os.kill(worker_pid(server), signal.SIGKILL)
    messages = receiver.wait_for(2)

    assert sorted(message["type"] for message in messages) == ["backend.down", "backend.up"]
    assert {message["data"]["kind"] for message in messages} == {"worker"}
    answer = server.cli("run", "acme/shout", "hi")
    assert answer.stdout.strip() == "HI"


def worker_pid(server: LingpaiServer) -> int:
    """The process that runs the models of a Python file."""
    assert server.process is not None
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == server.process.pid and b"lingpai.backends.engines" in command:
            return int(path.name)
    raise AssertionError("no worker")
