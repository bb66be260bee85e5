"""Whoever may not call any more is cut off in the midst of a call too, and what was used until then is recorded."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, post, post_bytes
from tests.e2e.stock_clients import requests_session
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
MOST_S = 5.0


@dataclass
class Stage:
    """A caller in the midst of a stream, and another one whom nothing that happens here concerns."""

    server: LingpaiServer
    engine: FakeEngine
    calls: list[EngineCall]
    script: str

    def begin(self, credential: str) -> tuple[RawConnection, str]:
        connection = RawConnection(self.server.port, timeout=MOST_S)
        connection.send(post_bytes(CHAT, chat(stream=True, script=self.script), key=credential))
        status, headers = connection.read_head()
        assert status == 200
        connection.read_until(b"word")
        return connection, headers["x-request-id"]


@pytest.fixture
def stage(relay: LingpaiServer, engine: FakeEngine) -> Iterator[Stage]:
    calls: list[EngineCall] = []

    async def endless(call: EngineCall) -> None:
        calls.append(call)
        await call.stream_head()
        while not call.is_gone:
            await call.event(chunk(call.json, {"content": " word"}))
            await asyncio.sleep(0.02)

    return Stage(relay, engine, calls, engine.script(endless))


def change(path: str, **fields: Any) -> Callable[[LingpaiServer], None]:
    return lambda server: server.admin("PATCH", f"/api/v1/{path}", fields)


def delete(path: str) -> Callable[[LingpaiServer], None]:
    return lambda server: server.admin("DELETE", f"/api/v1/{path}")


CHANGES_TO_KEY = {
    "deleted": (delete("keys/{name}"), "invalid_api_key"),
    "disabled": (change("keys/{name}", disabled=True), "key_disabled"),
    "owner disabled": (change("users/{name}", disabled=True), "key_disabled"),
    "scope taken": (change("keys/{name}", scopes=["keys:read"]), "insufficient_scope"),
    "other addresses": (change("keys/{name}", allowed_ips=["203.0.113.0/24"]), "ip_not_allowed"),
    "other models": (change("keys/{name}", models=["acme/writer"]), "model_not_allowed"),
}
CHANGES_TO_CLIENT = {
    "deleted": (delete("clients/{name}"), "invalid_api_key"),
    "disabled": (change("clients/{name}", disabled=True), "key_disabled"),
    "owner disabled": (change("users/{name}", disabled=True), "key_disabled"),
    "scope taken": (change("clients/{name}", scopes=["keys:read"]), "insufficient_scope"),
    "other addresses": (change("clients/{name}", allowed_ips=["203.0.113.0/24"]), "ip_not_allowed"),
    "other models": (change("clients/{name}", models=["acme/writer"]), "model_not_allowed"),
}


class Named:
    """A server whose paths have the name in them."""

    def __init__(self, server: LingpaiServer, name: str) -> None:
        self._server, self._name = server, name

    def admin(self, method: str, path: str, fields: Any = None) -> Any:
        return self._server.admin(method, path.format(name=self._name), fields)


def make_token(server: LingpaiServer, name: str) -> tuple[str, tuple[str, str]]:
    """An access token of a new client, and the client's credentials."""
    client = server.admin("POST", "/api/v1/clients", {"name": name, "user": name, "limits": ["none"]})
    credentials = client["client_id"], client["client_secret"]
    return token_for(server, credentials), credentials


def token_for(server: LingpaiServer, credentials: tuple[str, str]) -> str:
    with requests_session() as session:
        answer = session.post(
            f"{server.base}/oauth/token", auth=credentials, data={"grant_type": "client_credentials"}
        )
    SCAN.secrets.add_credentials(answer.text)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def assert_cut_off(stage: Stage, connection: RawConnection, request_id: str, code: str, began: float) -> None:
    with connection:
        rest = connection.read_rest()
    took = time.monotonic() - began
    assert took < MOST_S
    assert f'"code":"{code}"'.encode() in rest, rest[-500:]
    assert b"[DONE]" not in rest
    record = stage.server.record_of(request_id)
    assert (record["end_reason"], record["charged"]) == ("stopped", 1)
    assert record["completion_tokens"] > 0
    call = stage.calls[0]
    assert call.is_gone or asyncio.run(_gone_soon(call))


async def _gone_soon(call: EngineCall) -> bool:
    deadline = time.monotonic() + 1
    while not call.is_gone and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return call.is_gone


@pytest.mark.parametrize("what", CHANGES_TO_KEY)
def test_stream_of_a_key_ends_when_it_may_not_call_any_more(stage: Stage, what: str, key_name: str):
    name = f"{key_name}-{what}".replace(" ", "-")
    stage.server.admin("POST", "/api/v1/users", {"name": name, "limits": ["none"]})
    key = stage.server.make_key(name, user=name)
    connection, request_id = stage.begin(key)
    other, _ = stage.begin(stage.server.key)
    act, code = CHANGES_TO_KEY[what]

    began = time.monotonic()
    act(Named(stage.server, name))  # type: ignore[arg-type]  # all that is asked of a server
    next_call = post(stage.server.port, CHAT, chat(), key=key)

    assert next_call.error["code"] == code
    assert_cut_off(stage, connection, request_id, code, began)
    other.read_until(b"word")  # goes on
    other.close()


@pytest.mark.parametrize("what", CHANGES_TO_CLIENT)
def test_stream_of_a_token_ends_when_its_client_may_not_call_any_more(stage: Stage, what: str, key_name: str):
    name = f"{key_name}-{what}".replace(" ", "-")
    stage.server.admin("POST", "/api/v1/users", {"name": name, "limits": ["none"]})
    token, _ = make_token(stage.server, name)
    connection, request_id = stage.begin(token)
    act, code = CHANGES_TO_CLIENT[what]

    began = time.monotonic()
    act(Named(stage.server, name))  # type: ignore[arg-type]  # all that is asked of a server
    next_call = post(stage.server.port, CHAT, chat(), key=token)

    assert next_call.error["code"] == code
    assert_cut_off(stage, connection, request_id, code, began)


def test_rfc7009_s2_1_stream_of_a_revoked_token_ends_and_that_of_the_clients_next_one_goes_on(
    stage: Stage, key_name: str
):
    stage.server.admin("POST", "/api/v1/users", {"name": key_name, "limits": ["none"]})
    token, credentials = make_token(stage.server, key_name)
    connection, request_id = stage.begin(token)
    next_one, _ = stage.begin(token_for(stage.server, credentials))

    began = time.monotonic()
    with requests_session() as session:
        revoked = session.post(f"{stage.server.base}/oauth/revoke", auth=credentials, data={"token": token})

    assert revoked.status_code == 200
    assert post(stage.server.port, CHAT, chat(), key=token).error["code"] == "invalid_api_key"
    assert_cut_off(stage, connection, request_id, "invalid_api_key", began)
    next_one.read_until(b"word")
    next_one.close()


def test_call_that_waits_for_its_answer_ends_too(stage: Stage, key_name: str, engine: FakeEngine):
    """A caller who has no answer yet gets the refusal, and is charged the prompt: the backend was at work on it."""

    async def thinks(call: EngineCall) -> None:
        stage.calls.append(call)
        await call.wait_gone(30)

    key = stage.server.make_key(key_name)
    with RawConnection(stage.server.port, timeout=MOST_S) as connection:
        connection.send(post_bytes(CHAT, chat(script=engine.script(thinks)), key=key))
        while not stage.calls:
            time.sleep(0.01)
        change("keys/{name}", disabled=True)(Named(stage.server, key_name))  # type: ignore[arg-type]
        answer = connection.read_answer()

    assert (answer.status, answer.error["code"]) == (401, "key_disabled")
    record = stage.server.record_of(answer.headers["x-request-id"])
    assert (record["end_reason"], record["charged"], record["completion_tokens"]) == ("stopped", 1, 0)
    assert record["prompt_tokens"] > 0


def test_change_that_takes_nothing_away_ends_nothing(stage: Stage, key_name: str):
    key = stage.server.make_key(key_name)
    connection, _ = stage.begin(key)

    change("keys/{name}", limits=["1000/day"])(Named(stage.server, key_name))  # type: ignore[arg-type]
    time.sleep(1.2)  # two looks

    connection.read_until(b"word")
    connection.close()
