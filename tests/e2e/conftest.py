"""Servers that tests share: real processes, started once."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lingpai.identity.scopes import ALL_SCOPES
from tests.e2e.api_operations import client_with
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.oauth_server import OAuthServer
from tests.e2e.raw_http import RawConnection, get
from tests.fakes.openai_engine import FakeEngine

MakeServer = Callable[..., LingpaiServer]

_RELAY_CONFIG = """
[gateway]
max_body_bytes = 200000
idle_timeout_s = 1.5
first_byte_timeout_s = 2.0

[limits]
default = ["100000/day@Asia/Shanghai"]

[[models]]
target = "{engine}"
name = "engine"
rename = {{ "plain-chat:8b" = "acme/writer" }}
aliases = {{ "gpt-4o-mini" = "fake/chat", "text-embedding-3-small" = "fake/embed-small" }}
"""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes many seconds; runs by default")


@pytest.fixture(scope="session")
def engine() -> Iterator[FakeEngine]:
    """An engine that answers as it is told."""
    engine = FakeEngine().start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LingpaiServer]:
    """A server with the demonstration models, as a newcomer starts it."""
    server = LingpaiServer(tmp_path_factory.mktemp("demo")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory, engine: FakeEngine) -> Iterator[LingpaiServer]:
    """A server in front of the fake engine, with short time-outs and a small body limit."""
    config = _RELAY_CONFIG.format(engine=engine.url)
    server = LingpaiServer(tmp_path_factory.mktemp("relay"), config=config).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def oauth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """A server whose people have passwords. One per module: failures of some must not slow others down."""
    people = {"alice": "alices long password", "bob": "bobs: pässword %2B +"}
    server = OAuthServer(tmp_path_factory.mktemp("oauth"), people=people).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LingpaiServer]:
    """A server of one module's own, on which every operation is tried."""
    server = LingpaiServer(tmp_path_factory.mktemp("tried")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def document(tried: LingpaiServer) -> dict[str, Any]:
    """The OpenAPI document of `tried`."""
    return dict(get(tried.port, "/openapi.json").json)


@pytest.fixture(scope="module")
def root(tried: LingpaiServer) -> Iterator[httpx2.Client]:
    """A client of `tried` whose key holds every scope."""
    with client_with(tried, tried.make_key("root", scopes=sorted(ALL_SCOPES))) as client:
        yield client


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Servers of one test's own; each is stopped after it."""
    servers: list[LingpaiServer] = []

    def make(*targets: str, **options: object) -> LingpaiServer:
        server = LingpaiServer(tmp_path / f"server-{len(servers)}", *targets, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield make
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.keep_what_it_shows()
            server.kill()


_numbers = itertools.count()


@pytest.fixture
def key_name() -> str:
    """A name that no other key has."""
    return f"key-{next(_numbers)}"


@pytest.fixture
def relay_key(relay: LingpaiServer, key_name: str) -> str:
    """A new key without limits on the relay."""
    return relay.make_key(key_name)


@pytest.fixture
def no_window_ends() -> None:
    """No calendar window ends in the next half minute: what a test has used is still used at its end.

    Windows end at full hours of their zone, and zones differ by quarters of an hour.
    """
    left = 900 - time.time() % 900
    if left < 30:
        time.sleep(left)


@pytest.fixture(scope="session")
def half_sent_head(relay: LingpaiServer) -> Iterator[tuple[RawConnection, float]]:
    """A connection with half a request head, and when it was opened: early, so that the test at the end waits little."""
    with RawConnection(relay.port) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: lingpai.test\r\nx-slow: ")
        yield connection, time.monotonic()
