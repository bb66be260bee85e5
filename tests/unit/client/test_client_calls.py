"""`Client` and `AsyncClient` against a real server on a socket."""

import asyncio
import inspect
import socket
import threading

import pytest

import lingpai.client
from lingpai.client import (
    APIError,
    AsyncClient,
    AuthenticationError,
    Client,
    CredentialError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)
from tests.fakes.management_api import Answer, SlowStream, error, sse

CHAT = ("POST", "/v1/chat/completions")


@pytest.fixture
def lp(api):
    with Client(api.server, api_key=api.accepted_key) as client:
        yield client


def run_async(api, use):
    async def main():
        async with AsyncClient(api.server, api_key=api.accepted_key) as lp:
            return await use(lp)

    return asyncio.run(main())


def test_run_sends_input_and_parameters(api, lp):
    result = lp.run("acme/shout", "hi", times=2)

    assert (result.output, result.model, result.request_id) == ("HI!", "acme/shout", "req_1")
    assert api.last.body == {"input": "hi", "parameters": {"times": 2}}
    assert api.last.headers["authorization"] == f"Bearer {api.accepted_key}"


def test_model_ids_keep_their_slashes_and_colons(api, lp):
    lp.run("hf.co/owner/name:Q6_K", "hi")

    assert api.last.path == "/api/v1/models/hf.co/owner/name:Q6_K/inference"


def test_chat_takes_a_text_or_messages(api, lp):
    text = lp.chat("lingpai/eliza", "hi", temperature=0)
    first = api.last.body
    lp.chat("lingpai/eliza", [{"role": "user", "content": "hi"}], temperature=0)

    assert text == "Hello world"
    assert first == api.last.body
    assert first == {
        "model": "lingpai/eliza",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
    }


def test_chat_streams(api, lp):
    assert list(lp.chat("lingpai/eliza", "hi", stream=True)) == ["Hello", " world"]
    assert api.last.body["stream"] is True


def test_chat_stream_accepts_what_servers_send_beside_text(api, lp):
    api.stream = (
        b': ping\r\n\r\ndata: {"choices": [{"delta": {"role": "assistant"}}]}\r\n\r\n'
        b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\r\n\r\n'
        b'data: {"choices": [{"delta": null, "finish_reason": "stop"}]}\r\n\r\n'
        b'data: {"choices": null, "usage": {}}\r\n\r\ndata: {"choices": [], "usage": {}}\r\n\r\n'
    )

    assert list(lp.chat("lingpai/eliza", "hi", stream=True)) == ["a"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ('data: {"error": {"message": "It died.", "code": "model_error"}}\n\n', "It died."),
        ('event: error\ndata: {"error": {"message": "It died.", "code": "model_error"}}', "It died."),
        ("event: error\ndata: plain words\n\n", "plain words"),
        ('data: {"error": "a string"}\n\n', "a string"),
    ],
)
def test_an_error_in_the_stream_is_raised(api, lp, end, message):
    api.stream = sse("a", end=end)

    with pytest.raises(APIError) as caught:
        list(lp.chat("lingpai/eliza", "hi", stream=True))

    assert caught.value.message == message
    assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("end", ["", "data: not json\n\n"])
def test_a_stream_that_breaks_off_is_not_a_whole_answer(api, lp, end):
    api.stream = sse("a", end=end)

    with pytest.raises(UnexpectedAnswerError):
        list(lp.chat("lingpai/eliza", "hi", stream=True))


def test_closing_the_iterator_cancels_the_answer(api, lp):
    left = threading.Event()
    api.faults[CHAT] = Answer(
        body=SlowStream(sse("a", end=""), left), headers={"content-type": "text/event-stream"}
    )

    pieces = lp.chat("lingpai/eliza", "hi", stream=True)
    first = next(pieces)
    pieces.close()

    assert first == "a"
    assert left.wait(10)


def test_models_and_key(api, lp):
    assert [model["id"] for model in lp.models()] == ["lingpai/eliza", "lingpai/sentiment"]
    assert lp.key()["user"] == "alice"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (413, InvalidRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_status_has_its_class(api, lp, status, kind, stream):
    api.faults[CHAT] = error(status, "some_code", "Because.", **{"x-request-id": "req_9", "retry-after": "7"})

    with pytest.raises(kind) as caught:
        list(lp.chat("lingpai/eliza", "hi", stream=stream))

    refusal = caught.value
    assert (refusal.status, refusal.code, str(refusal)) == (status, "some_code", "Because.")
    assert (refusal.request_id, refusal.retry_after) == ("req_9", 7.0)


@pytest.mark.parametrize("left", ['"key-day";r=0;t=1', '"key-day";r=0;t=900', '"key-day', ";;=,", "\xff", ""])
def test_ratelimit_s6_retry_after_wins_and_malformed_fields_are_ignored(api, lp, left):
    headers = {"retry-after": "7", "ratelimit": left, "ratelimit-policy": left}
    api.faults[CHAT] = error(429, "rate_limit_exceeded", "Too fast.", **headers)

    with pytest.raises(RateLimitError) as caught:
        lp.chat("lingpai/eliza", "hi")

    assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 7.0)


def test_retry_after_in_milliseconds_is_more_exact(api, lp):
    headers = {"retry-after": "1", "retry-after-ms": "250"}
    api.faults[CHAT] = error(429, "rate_limit_exceeded", "Too fast.", **headers)

    with pytest.raises(RateLimitError) as caught:
        lp.chat("lingpai/eliza", "hi")

    assert caught.value.retry_after == 0.25


@pytest.mark.parametrize(
    "answer",
    [
        Answer(502, b"<html>Bad gateway</html>", {"content-type": "text/html"}),
        Answer(400, {"detail": "not ours"}),
        Answer(200, b"\xff\xfe", {"content-type": "application/json"}),
        Answer(200, {"something": "else"}),
        Answer(307, None, {"location": "https://elsewhere.example"}),
    ],
)
def test_what_lingpai_does_not_answer(api, lp, answer):
    api.faults[CHAT] = answer

    with pytest.raises(UnexpectedAnswerError):
        lp.chat("lingpai/eliza", "hi")


def test_a_stopped_server_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with Client(f"127.0.0.1:{port}") as lp, pytest.raises(ServerUnreachableError, match=str(port)):
        lp.models()


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("LINGPAI_SERVER", "https://models.example/v1")
    monkeypatch.setenv("LINGPAI_API_KEY", "sk-lp-x")

    with Client() as lp:
        assert (lp.server, lp.base_url, lp.token()) == (
            "https://models.example",
            "https://models.example/v1",
            "sk-lp-x",
        )


def test_without_settings_it_is_this_machine():
    with Client() as lp:
        assert lp.base_url == "http://127.0.0.1:8741/v1"


def test_no_key_is_sent_when_there_is_none(api):
    with Client(api.server) as lp, pytest.raises(AuthenticationError):
        lp.models()

    assert "authorization" not in api.last.headers


def test_this_machine_is_never_reached_through_a_proxy(api, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    with Client(api.server, api_key=api.accepted_key) as lp:
        assert lp.models()


@pytest.mark.parametrize("key", ["sk-lp-a\n", "Bearer sk-lp-a", "sk-lp-ä", "sk-lp-\x00"])
def test_a_key_that_cannot_be_one_is_refused_without_being_repeated(key):
    with pytest.raises(CredentialError) as caught:
        Client("http://h", api_key=key)

    assert "sk-lp" not in str(caught.value)


def test_the_key_is_not_in_the_representation():
    with Client("http://h", api_key="sk-lp-secret") as lp:
        assert "secret" not in repr(lp)
        assert "secret" not in repr(vars(lp))


def test_a_server_behind_a_path(api):
    api.faults["GET", "/gateway/v1/models"] = Answer(body={"data": [{"id": "a"}]})

    with Client(f"{api.server}/gateway/v1", api_key=api.accepted_key) as lp:
        assert lp.models() == [{"id": "a"}]


def test_async_run_chat_models_and_key(api):
    async def use(lp):
        result = await lp.run("acme/shout", "hi", times=2)
        return (
            result.output,
            await lp.chat("lingpai/eliza", "hi"),
            len(await lp.models()),
            (await lp.key())["user"],
        )

    assert run_async(api, use) == ("HI!", "Hello world", 2, "alice")


def test_async_chat_streams(api):
    async def use(lp):
        return [piece async for piece in await lp.chat("lingpai/eliza", "hi", stream=True)]

    assert run_async(api, use) == ["Hello", " world"]


@pytest.mark.parametrize("stream", [False, True])
def test_async_errors_are_the_same(api, stream):
    api.faults[CHAT] = error(429, "insufficient_quota", "Spent.")

    async def use(lp):
        answer = await lp.chat("lingpai/eliza", "hi", stream=stream)
        return [piece async for piece in answer]

    with pytest.raises(RateLimitError, match="Spent"):
        run_async(api, use)


def test_both_clients_offer_the_same():
    """The same methods with the same parameters, so that what one can, the other can."""
    sync, asynchronous = (
        {name: getattr(kind, name) for name in vars(kind) if not name.startswith("_")}
        for kind in (Client, AsyncClient)
    )

    assert sync.keys() == asynchronous.keys()
    for name, method in sync.items():
        assert list(inspect.signature(method).parameters) == list(
            inspect.signature(asynchronous[name]).parameters
        )


def test_public_names():
    """Adding or removing one is a decision, not an accident."""
    assert lingpai.client.__all__ == [
        "CA_VARIABLE",
        "DEFAULT_SERVER", "APIError", "AddressError", "AsyncClient", "AuthenticationError", "Client", "ClientError",
        "CredentialError", "InvalidRequestError", "NotFoundError", "PermissionDeniedError", "RateLimitError", "Result",
        "ServerError", "ServerUnreachableError", "UnexpectedAnswerError", "is_local", "normalize_server",
        "trusting_context",
    ]  # fmt: skip
