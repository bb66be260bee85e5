"""Whoever may not call any more is cut off in the midst of a call too, and what was used until then is recorded."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, post, post_bytes
from tests.e2e.signed_caller import SignedCaller, SignedClient
from tests.e2e.stock_clients import requests_session
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
MOST_S = 5.0
LOOK_S = 0.7
"""A little more than from one look to the next."""


@dataclass
class Stage:
    """A caller in the midst of a stream, and another one whom nothing that happens here concerns."""

    server: LingpaiServer
    engine: FakeEngine
    calls: list[EngineCall]
    script: str

    @property
    def body(self) -> bytes:
        return json.dumps(chat(stream=True, script=self.script)).encode()

    def begin(self, credential: str) -> tuple[RawConnection, str]:
        return self.send(post_bytes(CHAT, self.body, key=credential))

    def send(self, request: bytes) -> tuple[RawConnection, str]:
        connection = RawConnection(self.server.port, timeout=MOST_S)
        connection.send(request)
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


def assert_goes_on(*connections: RawConnection) -> None:
    time.sleep(LOOK_S)
    for connection in connections:
        with connection:
            latest = time.monotonic() + 0.1  # what came before that may have been on its way for long
            while time.monotonic() < latest:
                assert b"word" in connection.receive()


def assert_cut_off(
    stage: Stage, connection: RawConnection, request_id: str, code: str, began: float, *, number: int = 0
) -> None:
    """`number` of the call at the backend."""
    rest = b""
    with connection:
        while data := connection.receive():
            rest += data
            assert time.monotonic() - began < MOST_S, "it goes on"
    assert f'"code":"{code}"'.encode() in rest, rest[-500:]
    assert b"[DONE]" not in rest
    record = stage.server.record_of(request_id)
    assert (record["end_reason"], record["charged"]) == ("stopped", 1)
    assert record["completion_tokens"] > 0
    call = stage.calls[number]
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
    assert_goes_on(other)


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
    assert_goes_on(next_one)


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
    assert_goes_on(connection)


def test_call_of_whoever_runs_the_server_goes_on(stage: Stage, key_name: str):
    request = chat(stream=True, script=stage.script)
    with stage.server.answer("POST", CHAT, request, timeout=MOST_S) as answer:
        assert answer.status == 200
        answer.readline()
        stage.server.make_key(key_name)  # something has changed
        until = time.monotonic() + LOOK_S
        while time.monotonic() < until:
            assert answer.readline()
        assert b'"error"' not in answer.read1()


# -- signed calls

INVALID = "signature_invalid"
CHANGES_TO_SIGNER = {
    **CHANGES_TO_KEY,
    "deleted": (delete("keys/{name}"), INVALID),  # its signing keys with it
    "signing key deleted": (delete("keys/{name}/signing-keys/{signing_key}"), INVALID),
}
CHANGES_TO_SIGNING_CLIENT = {
    **CHANGES_TO_CLIENT,
    "deleted": (delete("clients/{name}"), INVALID),
    "signing key deleted": (delete("clients/{name}/signing-keys/{signing_key}"), INVALID),
}


class Signer(Named):
    def __init__(self, server: LingpaiServer, name: str, signing_key_id: str) -> None:
        super().__init__(server, name)
        self._signing_key_id = signing_key_id

    def admin(self, method: str, path: str, fields: Any = None) -> Any:
        return super().admin(method, path.replace("{signing_key}", self._signing_key_id), fields)


def signed_caller(stage: Stage, name: str) -> SignedCaller:
    stage.server.admin("POST", "/api/v1/users", {"name": name, "limits": ["none"]})
    return SignedCaller(stage.server, name, user=name)


def signed_client(stage: Stage, name: str, **fields: Any) -> SignedClient:
    stage.server.admin("POST", "/api/v1/users", {"name": name, "limits": ["none"]})
    return SignedClient(stage.server, name, user=name, **fields)


@pytest.mark.parametrize("what", CHANGES_TO_SIGNER)
def test_signed_stream_of_a_key_ends_when_it_may_not_call_any_more(stage: Stage, what: str, key_name: str):
    name = f"{key_name}-{what}".replace(" ", "-")
    caller = signed_caller(stage, name)
    connection, request_id = stage.send(caller.request(stage.body))
    neighbour = SignedCaller(stage.server, f"{name}-other")
    others = [stage.send(neighbour.request(stage.body))[0], stage.begin(stage.server.key)[0]]
    act, code = CHANGES_TO_SIGNER[what]

    began = time.monotonic()
    act(Signer(stage.server, name, caller.signing_key_id))  # type: ignore[arg-type]
    next_call = caller.send(stage.body)

    assert next_call.error["code"] == code
    assert_cut_off(stage, connection, request_id, code, began)
    assert_goes_on(*others)


@pytest.mark.parametrize("what", CHANGES_TO_SIGNING_CLIENT)
def test_signed_stream_with_a_token_ends_when_its_client_may_not_call_any_more(
    stage: Stage, what: str, key_name: str
):
    name = f"{key_name}-{what}".replace(" ", "-")
    client = signed_client(stage, name)
    token = client.client.token()
    connection, request_id = stage.send(client.request(token, stage.body))
    neighbour = SignedClient(stage.server, f"{name}-other")
    other, _ = stage.send(neighbour.request(neighbour.client.token(), stage.body))
    act, code = CHANGES_TO_SIGNING_CLIENT[what]

    began = time.monotonic()
    act(Signer(stage.server, name, client.signing_key_id))  # type: ignore[arg-type]
    next_call = client.send(token, stage.body)

    assert next_call.error["code"] == code
    assert_cut_off(stage, connection, request_id, code, began)
    assert_goes_on(other)


def test_signed_stream_with_a_token_ends_with_the_token(stage: Stage, key_name: str):
    client = signed_client(stage, key_name)
    token = client.client.token()
    connection, request_id = stage.send(client.request(token, stage.body))
    with_next_token, _ = stage.send(client.request(client.client.token(), stage.body))

    began = time.monotonic()
    with requests_session() as session:
        credentials = client.client.id, client.client.secret
        session.post(f"{stage.server.base}/oauth/revoke", auth=credentials, data={"token": token})

    assert client.send(token, stage.body).error["code"] == "invalid_api_key"
    assert_cut_off(stage, connection, request_id, "invalid_api_key", began)
    assert_goes_on(with_next_token)


@pytest.mark.parametrize("is_signed_first", [True, False])
def test_signed_and_bearer_streams_of_one_key_end_with_it(stage: Stage, key_name: str, is_signed_first: bool):
    caller = signed_caller(stage, key_name)
    ways = [lambda: stage.send(caller.request(stage.body)), lambda: stage.begin(caller.key)]
    streams = [begin() for begin in (ways if is_signed_first else ways[::-1]) * 2]

    began = time.monotonic()
    delete("keys/{name}")(Named(stage.server, key_name))  # type: ignore[arg-type]

    for number, (connection, request_id) in enumerate(streams):
        code = INVALID if is_signed_first == (number % 2 == 0) else "invalid_api_key"
        assert_cut_off(stage, connection, request_id, code, began, number=number)


@pytest.mark.parametrize("is_signed_first", [True, False])
def test_deleted_signing_key_ends_what_it_has_signed_and_no_other_stream_of_its_key(
    stage: Stage, key_name: str, is_signed_first: bool
):
    caller = signed_caller(stage, key_name)
    deleted = caller.signing_key_id
    before = [] if is_signed_first else [stage.begin(caller.key)[0]]
    connection, request_id = stage.send(caller.request(stage.body))
    caller.add_signing_key()
    others = [*before, stage.begin(caller.key)[0], stage.send(caller.request(stage.body))[0]]

    began = time.monotonic()
    stage.server.admin("DELETE", f"{caller.path}/{deleted}")

    assert_cut_off(stage, connection, request_id, INVALID, began, number=len(before))
    assert_goes_on(*others)


def test_key_that_is_for_signed_requests_now_loses_its_bearer_stream_and_no_signed_one(
    stage: Stage, key_name: str
):
    caller = signed_caller(stage, key_name)
    signed, _ = stage.send(caller.request(stage.body))
    bearer, request_id = stage.begin(caller.key)
    both, _ = stage.send(caller.request(stage.body, key=caller.key))

    began = time.monotonic()
    change("keys/{name}", signature_required=True)(Named(stage.server, key_name))  # type: ignore[arg-type]

    assert post(stage.server.port, CHAT, chat(), key=caller.key).error["code"] == "signature_required"
    assert_cut_off(stage, bearer, request_id, "signature_required", began, number=1)
    assert_goes_on(signed, both)


def test_client_that_is_for_signed_requests_now_loses_its_bearer_stream_and_no_signed_one(
    stage: Stage, key_name: str
):
    client = signed_client(stage, key_name, signature_required=False)
    token = client.client.token()
    signed, _ = stage.send(client.request(token, stage.body))
    bearer, request_id = stage.begin(token)

    began = time.monotonic()
    change("clients/{name}", signature_required=True)(Named(stage.server, key_name))  # type: ignore[arg-type]

    assert_cut_off(stage, bearer, request_id, "signature_required", began, number=1)
    assert_goes_on(signed)
