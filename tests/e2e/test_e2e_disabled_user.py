"""A user who is disabled has lost everything at once: whatever speaks for them is refused within a second."""

import asyncio
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.oauth_server import FORM, TOKEN, basic_header
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get, post, post_bytes
from tests.e2e.signed_caller import CHAT, SignedCaller
from tests.e2e.test_e2e_sign_in import PASSWORD, Browser
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk
from tests.secrets_scan import SCAN

MOST_S = 1.0
MOST_OF_STREAM_S = 5.0
USER = "leaver"


@pytest.fixture
def server(make_server: MakeServer, engine: FakeEngine) -> LingpaiServer:
    server = make_server(engine.url).start()
    server.admin("POST", "/api/v1/users", {"name": USER, "password": PASSWORD, "limits": ["none"]})
    return server


@pytest.fixture
def browser(server: LingpaiServer) -> Iterator[Browser]:
    with Browser(server) as browser:
        assert browser.sign_in(USER).status_code == 201
        yield browser


def test_disabled_user_is_refused_everywhere_within_a_second(
    server: LingpaiServer, browser: Browser, engine: FakeEngine
) -> None:
    """Key, client, its token, own tokens, session and signing key, all at once, and a stream that is under way."""
    ways = ways_in(server, browser)
    assert {way: ask() for way, ask in ways.items()} == dict.fromkeys(ways, 200)

    with stream_of(server, engine) as stream:
        server.admin("PATCH", f"/api/v1/users/{USER}", {"disabled": True})
        began = time.monotonic()
        answers = {way: (ask(), time.monotonic() - began) for way, ask in ways.items()}
        rest = stream.read_rest()
        stream_took_s = time.monotonic() - began

    assert [way for way, (status, _) in answers.items() if status not in (401, 403)] == []
    assert max(took_s for _, took_s in answers.values()) < MOST_S
    assert stream_took_s < MOST_OF_STREAM_S
    assert b'"code":"key_disabled"' in rest
    assert b"[DONE]" not in rest
    refused = form(server, {"grant_type": "password", "username": USER, "password": PASSWORD})
    assert (refused.status, refused.json["error"]) == (400, "invalid_grant")


def ways_in(server: LingpaiServer, browser: Browser) -> dict[str, Callable[[], int]]:
    """What speaks for the user, each with a request that gives the status of its answer."""
    key = server.make_key("of-leaver", user=USER)
    made = server.admin("POST", "/api/v1/clients", {"name": "of-leaver", "user": USER, "limits": ["none"]})
    basic = f"authorization: {basic_header(made['client_id'], made['client_secret'])}"
    own_grant = {"grant_type": "client_credentials"}
    of_client = form(server, own_grant, basic).json["access_token"]
    own = form(server, {"grant_type": "password", "username": USER, "password": PASSWORD}).json
    signed = SignedCaller(server, "signed-by-leaver", user=USER)

    def call(credential: str) -> int:
        return post(server.port, CHAT, chat(), key=credential).status

    return {
        "key, calling": lambda: call(key),
        "key, managing": lambda: get(server.port, "/v1/key", key=key).status,
        "token of a client": lambda: call(of_client),
        "client, asking for a token": lambda: form(server, own_grant, basic).status,
        "own token": lambda: call(own["access_token"]),
        "session": lambda: browser.send("GET", "/api/v1/sessions/current").status_code,
        "session, listing": lambda: browser.send("GET", "/api/v1/keys").status_code,
        "signature": lambda: signed.send(method="GET", path="/v1/key").status,
        "signature beside its key": lambda: signed.send(method="GET", path="/v1/key", key=signed.key).status,
    }


def form(server: LingpaiServer, fields: dict[str, str], *headers: str) -> RawAnswer:
    """What the token endpoint answers."""
    body = urlencode(fields).encode()
    answer = exchange(server.port, post_bytes(TOKEN, body, content_type=FORM, headers=headers))
    SCAN.secrets.add_credentials(answer.body)
    return answer


def stream_of(server: LingpaiServer, engine: FakeEngine) -> RawConnection:
    """A call with a key of the user, in the midst of an answer that would go on for ever."""

    async def endless(call: EngineCall) -> None:
        await call.stream_head()
        while not call.is_gone:
            await call.event(chunk(call.json, {"content": " word"}))
            await asyncio.sleep(0.02)

    key = server.make_key("streaming", user=USER)
    connection = RawConnection(server.port, timeout=MOST_OF_STREAM_S)
    connection.send(post_bytes(CHAT, chat(stream=True, script=engine.script(endless)), key=key))
    assert connection.read_head()[0] == 200
    connection.read_until(b"word")
    return connection
