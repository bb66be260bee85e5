"""Every kind of refusal as the stock `openai` package meets it: its class, its fields, its request id, and how often it asks.

The package tries again after 408, 409, 429 and 5xx, unless `x-should-retry` says otherwise.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest

from lingpai.errors import CATALOGUE
from tests.e2e.raw_http import chat, get, post
from tests.fakes.openai_engine import EngineCall, FakeEngine

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
RETRIED = {408, 409, 429}


@contextmanager
def answering(engine: FakeEngine, status: str) -> Iterator[str]:
    """A script by which the engine answers so."""

    async def answers(call: EngineCall) -> None:
        await call.answer({"error": {"message": "no"}}, status=status)

    yield engine.script(answers)


def refusal(
    relay, key: str, kind: type[openai.APIStatusError], *, retries: int = 0, **fields
) -> openai.APIStatusError:
    with relay.openai(key, max_retries=retries) as client, pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "fake/chat", "messages": HELLO, **fields})
    return caught.value


def asked(relay, name: str) -> int:
    """How many calls the key with this name has made."""
    key_id = relay.admin("GET", f"/api/v1/keys/{name}")["id"]
    return len(relay.records("key_id = ?", key_id))


@pytest.fixture
def cases(relay, engine, key_name):
    """Each class with a key, fields of the call, status and code."""
    key = relay.make_key(key_name)
    narrow = relay.make_key(f"{key_name}-narrow", models=["acme/*"])
    spent = relay.make_key(f"{key_name}-spent", limits=["1/day"])
    post(relay.port, CHAT, chat(), key=spent)
    with (
        answering(engine, "500 Internal Server Error") as broken,
        answering(engine, "504 Gateway Timeout") as slow,
    ):
        yield [
            (openai.BadRequestError, key, {"messages": "no list"}, 400, "invalid_request"),
            (openai.AuthenticationError, "sk-lp-nonsense", {}, 401, "invalid_api_key"),
            (openai.PermissionDeniedError, narrow, {}, 403, "model_not_allowed"),
            (openai.NotFoundError, key, {"model": "no/such"}, 404, "model_not_found"),
            (openai.RateLimitError, spent, {}, 429, "insufficient_quota"),
            (openai.InternalServerError, key, {"extra_body": {"script": broken}}, 502, "backend_error"),
            (openai.InternalServerError, key, {"extra_body": {"script": slow}}, 504, "backend_timeout"),
        ]


def test_openai_errors_each_refusal_has_its_class_with_message_type_param_and_code(relay, cases):
    for kind, key, fields, status, code in cases:
        error = refusal(relay, key, kind, **fields)

        assert (type(error), error.status_code, error.code) == (kind, status, code)
        assert set(error.body) == {"message", "type", "param", "code"}  # the package unwraps `error`
        assert error.type == CATALOGUE[code].type
        assert len(error.body["message"]) > 20
    assert refusal(relay, cases[0][1], openai.BadRequestError, messages="no list").param == "messages"


def test_openai_errors_each_refusal_has_a_request_id_of_its_own(relay, cases):
    """Which is in the header alone, and the one in the records."""
    ids = []
    for kind, key, fields, *_ in cases:
        error = refusal(relay, key, kind, **fields)
        assert error.request_id == error.response.headers["x-request-id"]
        assert error.request_id.startswith("req_")
        ids.append(error.request_id)

    assert len(set(ids)) == len(ids)
    assert relay.record_of(ids[-1])["status"] == 504
    with relay.openai(cases[0][1]) as client:
        assert client.chat.completions.create(model="fake/chat", messages=HELLO)._request_id.startswith(
            "req_"
        )


def test_openai_errors_what_is_permanent_is_asked_once(relay, key_name):
    """However often the package would try again."""
    key = relay.make_key(key_name, limits=["1/day"])
    assert post(relay.port, CHAT, chat(), key=key).status == 200
    assert asked(relay, key_name) == 1

    for kind, fields in (
        (openai.BadRequestError, {"messages": "no list"}),
        (openai.NotFoundError, {"model": "no/such"}),
        (openai.RateLimitError, {}),
    ):
        before = asked(relay, key_name)
        refusal(relay, key, kind, retries=3, **fields)
        assert asked(relay, key_name) == before + 1, kind


def test_openai_errors_what_may_pass_is_asked_again(relay, engine, key_name):
    key = relay.make_key(key_name)
    with answering(engine, "502 Bad Gateway") as script:
        refusal(relay, key, openai.InternalServerError, retries=1, extra_body={"script": script})

    assert asked(relay, key_name) == 2


def test_openai_errors_retry_after_ms_goes_before_retry_after(relay, key_name):
    """A wait of 1.2 s is told as 2 s in whole seconds; the package waits for the exact one."""
    key = relay.make_key(key_name, limits=["5/6s"])
    for _ in range(5):
        assert post(relay.port, CHAT, chat(), key=key).status == 200
    refused = post(relay.port, CHAT, chat(), key=key)
    assert float(refused.headers["retry-after-ms"]) / 1000 < int(refused.headers["retry-after"])

    began = time.monotonic()
    with relay.openai(key, max_retries=1) as client:
        client.chat.completions.create(model="fake/chat", messages=HELLO)

    assert time.monotonic() - began < int(refused.headers["retry-after"]) + 0.25


def test_openai_errors_a_burst_says_when_and_a_spent_quota_says_not_to(relay, key_name):
    burst = relay.make_key(key_name, limits=["1/20s"])
    spent = relay.make_key(f"{key_name}-spent", limits=["1/day"])
    for key in (burst, spent):
        post(relay.port, CHAT, chat(), key=key)

    of_burst, of_quota = (refusal(relay, key, openai.RateLimitError) for key in (burst, spent))

    assert of_burst.code == "rate_limit_exceeded"
    assert 1 <= int(of_burst.response.headers["retry-after"]) <= 20
    assert "x-should-retry" not in of_burst.response.headers
    assert of_quota.code == "insufficient_quota"
    assert of_quota.response.headers["x-should-retry"] == "false"


def test_openai_errors_no_refusal_of_ours_has_a_status_that_is_retried_although_nothing_will_change():
    """408 and 409 are for nothing here; of 429 and 5xx each is about something that may pass."""
    retried = {code for code, entry in CATALOGUE.items() if entry.status in RETRIED or entry.status >= 500}

    assert not [code for code, entry in CATALOGUE.items() if entry.status in (408, 409)]
    assert retried == {
        "rate_limit_exceeded", "insufficient_quota", "backend_rate_limited", "internal_error", "model_error", "backend_error",
        "backend_rejected_credentials", "backend_unavailable", "model_loading", "storage_unavailable", "server_busy",
        "shutting_down", "backend_timeout",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/api/v1/keys", "/api/v1/projects", "/api/v1/users"])
def test_openai_errors_a_name_that_is_taken_is_a_400(demo, key_name, path):
    """A 409 would be asked again by every client that is built like OpenAI's."""
    assert demo.try_admin("POST", path, {"name": key_name})[0] == 201

    status, answer = demo.try_admin("POST", path, {"name": key_name})

    assert (status, answer["error"]["code"]) == (400, "already_exists")


@pytest.mark.parametrize(
    "accept", ["application/problem+json", "application/problem+json, application/json;q=0.5", "text/html"]
)
def test_rfc9457_s3_whatever_is_asked_for_an_error_is_openais_object_and_says_so(relay, relay_key, accept):
    """No problem documents are made; nothing else is called one, and nobody is refused for asking."""
    wanted = (f"accept: {accept}",)

    for answer in (
        post(relay.port, CHAT, chat(model="no/such"), key=relay_key, headers=wanted),
        post(relay.port, CHAT, chat(), headers=wanted),
        get(relay.port, "/api/v1/keys", headers=wanted),
        get(relay.port, "/nothing", key=relay_key, headers=wanted),
    ):
        assert answer.status in (401, 404)
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert "status" not in answer.json
