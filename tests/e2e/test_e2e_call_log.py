"""The log of model calls: a line says who called, with what credential, and what came of it, and shows none."""

import json
import re
import time
from typing import Any

import pytest

from tests.e2e.client_tokens import TokenClient, make_client
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, chat, post
from tests.e2e.signed_caller import SignedClient
from tests.fakes.openai_engine import FakeEngine

CHAT = "/v1/chat/completions"
COUNTS = "status", "prompt_tokens", "completion_tokens"


@pytest.fixture(params=["json", "text"])
def logging_server(
    make_server: MakeServer, engine: FakeEngine, request: pytest.FixtureRequest
) -> LingpaiServer:
    config = f'[server]\nlog_calls = true\nlog_format = "{request.param}"\n'
    return make_server(engine.url, config=config).start()


def line_of(server: LingpaiServer, answer: RawAnswer) -> dict[str, Any]:
    """The fields of a call's line."""
    request_id = answer.headers["x-request-id"]
    deadline = time.monotonic() + 5
    while not (lines := [line for line in server.stderr.splitlines() if f"call {request_id}" in line]):
        assert time.monotonic() < deadline, server.stderr
        time.sleep(0.01)
    assert len(lines) == 1
    if lines[0].startswith("{"):
        return dict(json.loads(lines[0]))
    fields = dict(re.findall(r' (\w+)=("[^"]*"|\S+)', lines[0]))
    return {name: int(text) if name in COUNTS else text.strip('"') for name, text in fields.items()}


def token_id(client: TokenClient) -> str:
    """The id of the client's only token, as lists show it."""
    (token,) = client.server.admin("GET", f"/api/v1/tokens?client={client.id}")["data"]
    return str(token["id"])


def assert_says_what_the_record_does(server: LingpaiServer, line: dict[str, Any], answer: RawAnswer) -> None:
    record = server.record_of(answer.headers["x-request-id"])
    same = {
        "status": "status",
        "end": "end_reason",
        "model": "model",
        "client": "client_id",
        "user": "user_id",
    }
    same |= {"project": "project_id", "endpoint": "endpoint", "address": "client_address"}
    same |= {name: name for name in ("prompt_tokens", "completion_tokens")}
    assert {name: line[name] for name in same} == {name: record[column] for name, column in same.items()}
    assert line["model"]
    assert line["user"]
    assert line["prompt_tokens"] > 0
    assert line["completion_tokens"] > 0


def test_call_with_a_clients_token(logging_server: LingpaiServer, key_name: str):
    logging_server.admin("POST", "/api/v1/projects", {"name": key_name, "owner": "admin"})
    project = logging_server.admin("GET", f"/api/v1/projects/{key_name}")["id"]
    client = make_client(logging_server, key_name, project=key_name)
    token = client.token()

    answer = post(logging_server.port, CHAT, chat(), key=token)

    line = line_of(logging_server, answer)
    assert answer.status == 200
    assert (line["key"], line["client"], line["token"], line["project"]) == (
        "",
        client.id,
        token_id(client),
        project,
    )
    assert_says_what_the_record_does(logging_server, line, answer)
    assert token not in logging_server.stderr


def test_refused_call_with_a_clients_token(logging_server: LingpaiServer, key_name: str):
    client = make_client(logging_server, key_name, models=["acme/other"])

    answer = post(logging_server.port, CHAT, chat(), key=client.token())

    line = line_of(logging_server, answer)
    assert (answer.status, line["status"], line["end"]) == (403, 403, "refused")
    assert (line["client"], line["token"]) == (client.id, token_id(client))


def test_signed_call_with_a_clients_token(logging_server: LingpaiServer, key_name: str):
    signed = SignedClient(logging_server, key_name)

    answer = signed.send(signed.client.token(), json.dumps(chat()).encode())

    line = line_of(logging_server, answer)
    assert answer.status == 200
    assert (line["client"], line["token"]) == (signed.client.id, token_id(signed.client))


def test_call_with_a_key(logging_server: LingpaiServer, key_name: str):
    made = logging_server.admin("POST", "/api/v1/keys", {"name": key_name, "limits": ["none"]})

    answer = post(logging_server.port, CHAT, chat(), key=made["key"])

    line = line_of(logging_server, answer)
    assert (line["key"], line["client"], line["token"]) == (made["id"], "", "")
    assert_says_what_the_record_does(logging_server, line, answer)
    assert made["key"] not in logging_server.stderr
