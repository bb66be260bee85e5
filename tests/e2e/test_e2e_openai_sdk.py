"""The stock `openai` package, unchanged: what people's programs use."""

import asyncio
import base64
import datetime
import struct
import time

import openai
import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import PROMPT
from tests.fakes.openai_engine import FakeEngine, vector_of

HELLO = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def sdk(relay: LingpaiServer, relay_key: str):
    with relay.openai(relay_key) as client:
        yield client


def ask(client: openai.OpenAI, model: str = "fake/chat", **options):
    return client.chat.completions.create(model=model, messages=HELLO, **options)


def code_of(error: openai.APIError) -> str | None:
    return error.code


# -- answers


def test_chat_answers_with_text_usage_and_request_id(sdk):
    """A chat completion comes back whole, with its usage and the request id that the SDK exposes."""
    answer = ask(sdk)

    assert answer.choices[0].message.content == "Good day to you"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "fake/chat"
    assert answer.usage.total_tokens == 9
    assert answer._request_id.startswith("req_")


def test_chat_with_a_demonstration_model(demo):
    """The demonstration chat model answers the stock SDK with the key of the first start."""
    with demo.openai() as client:
        answer = ask(client, "lingpai/eliza")

    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("stream_options", [None, {"include_usage": False}])
def test_stream_has_no_usage_chunk_unless_asked(sdk, stream_options):
    """Without include_usage (or with an explicit false) every chunk has a choice, as clients index choices[0]."""
    options = {} if stream_options is None else {"stream_options": stream_options}

    chunks = list(ask(sdk, stream=True, **options))

    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Good day to you"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"


def test_stream_ends_with_the_usage_chunk_when_asked(sdk):
    """With include_usage exactly the last chunk has the usage and no choices."""
    chunks = list(ask(sdk, stream=True, stream_options={"include_usage": True}))

    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 9
    assert all(chunk.choices for chunk in chunks[:-1])


def test_usage_of_a_stream_is_recorded_although_the_caller_did_not_ask(relay, sdk):
    """The gateway asks the engine for usage on its own, for the record."""
    with sdk.chat.completions.with_streaming_response.create(
        model="fake/chat", messages=HELLO, stream=True
    ) as response:
        response.read()
        request_id = response.request_id

    record = relay.record_of(request_id)

    assert (record["prompt_tokens"], record["completion_tokens"], record["counted"]) == (5, 4, "reported")
    assert record["end_reason"] == "complete"


@pytest.mark.parametrize("stream_options", [None, {"include_usage": True}])
def test_stream_of_a_demonstration_model(demo, stream_options):
    """A local worker streams in the same shape as an engine: role first, one finish, usage only when asked."""
    options = {} if stream_options is None else {"stream_options": stream_options}
    with demo.openai() as client:
        chunks = list(ask(client, "lingpai/eliza", stream=True, **options))

    with_choices = [chunk for chunk in chunks if chunk.choices]
    assert with_choices[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in with_choices].count("stop") == 1
    assert len(chunks) - len(with_choices) == (stream_options is not None)


def test_completions_unary_and_streamed(sdk):
    """The older text completions work in both ways."""
    answer = sdk.completions.create(model="fake/chat", prompt=PROMPT)
    chunks = list(sdk.completions.create(model="fake/chat", prompt=PROMPT, stream=True))

    assert answer.choices[0].text == "Good day to you"
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Good day to you"


@pytest.mark.parametrize("answer_as", ["float", "base64"])
@pytest.mark.parametrize("asked", [None, "float", "base64"])
def test_embeddings_come_as_asked_whatever_the_engine_sends(sdk, asked, answer_as):
    """The SDK's default base64, floats and an explicit base64 all work with an engine that ignores the format."""
    options = {} if asked is None else {"encoding_format": asked}

    answer = sdk.embeddings.create(
        model="fake/embed-small", input=["one", "three"], extra_body={"answer_as": answer_as}, **options
    )

    vectors = [item.embedding for item in answer.data]
    if asked == "base64":
        vectors = [list(struct.unpack("<4f", base64.b64decode(vector))) for vector in vectors]
    assert vectors == [vector_of("one"), vector_of("three")]
    assert [item.index for item in answer.data] == [0, 1]


def test_embeddings_of_a_demonstration_model(demo):
    """The default base64 decodes to the same vector as floats, and similar texts are closer than unlike ones."""
    texts = ["the cat sat on the mat", "the cat sat on a mat", "stock prices fell sharply"]
    with demo.openai() as client:
        packed = client.embeddings.create(model="lingpai/hashing-embedding", input=texts)
        plain = client.embeddings.create(
            model="lingpai/hashing-embedding", input=texts, encoding_format="float"
        )

    one, near, far = (item.embedding for item in packed.data)
    assert one == pytest.approx(plain.data[0].embedding, abs=1e-6)
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    assert dot(one, near) > dot(one, far)


def test_models_are_listed(sdk):
    """`models.list()`, the connectivity test of every client, has the ids under which they are called."""
    models = list(sdk.models.list())

    assert [model.id for model in models] == [
        "fake/chat", "acme/writer", "hf.co/fake/Chat-GGUF:Q6_K", "fake/embed-small",
    ]  # fmt: skip
    assert all(
        model.object == "model" and isinstance(model.created, int) and model.owned_by for model in models
    )


@pytest.mark.parametrize("id_", ["fake/chat", "hf.co/fake/Chat-GGUF:Q6_K", "gpt-4o-mini"])
def test_one_model_is_retrieved_by_any_id(sdk, id_):
    """Ids with slashes and colons, and aliases, can be retrieved and are echoed."""
    assert sdk.models.retrieve(id_).id == id_


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/v1"])
def test_base_url_as_people_paste_it(relay, relay_key, suffix):
    """The base URL works without `/v1`, with it twice, and with a trailing slash."""
    with relay.openai(relay_key, base_url=relay.base + suffix) as client:
        assert ask(client).choices
        assert list(client.models.list())


def test_key_as_a_callable(relay, relay_key):
    """The SDK asks for the key before every request, as `Client.token` will need."""
    asked = []

    def token() -> str:
        asked.append(1)
        return relay_key

    with relay.openai(api_key=token) as client:
        ask(client)
        ask(client)

    assert len(asked) == 2


def test_async_client_chats_streams_and_embeds(relay, relay_key):
    """The async SDK does the same, several calls at once, and raises the same errors."""

    async def talk():
        async with relay.async_openai(relay_key) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="fake/chat", messages=HELLO) for _ in range(20))
            )
            stream = await client.chat.completions.create(model="fake/chat", messages=HELLO, stream=True)
            words = [chunk.choices[0].delta.content or "" async for chunk in stream]
            vectors = await client.embeddings.create(model="fake/embed-small", input="one")
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="fake/chatt", messages=HELLO)
            return answers, words, vectors

    answers, words, vectors = asyncio.run(talk())

    assert {answer.choices[0].message.content for answer in answers} == {"Good day to you"}
    assert len({answer._request_id for answer in answers}) == 20
    assert "".join(words) == "Good day to you"
    assert vectors.data[0].embedding == vector_of("one")


# -- refusals


def refusal(
    server: LingpaiServer, key: str, kind: type[openai.APIStatusError], **options
) -> openai.APIStatusError:
    with server.openai(key) as client, pytest.raises(kind) as caught:
        ask(client, **options)
    assert caught.value.request_id.startswith("req_")
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize("wrong", ["sk-lp-nonsense", "sk-proj-abcdefghijk", "EMPTY", "x" * 4000])
def test_wrong_key(relay, wrong):
    """A key that is not ours is an AuthenticationError with the code invalid_api_key."""
    assert refusal(relay, wrong, openai.AuthenticationError).code == "invalid_api_key"


def test_mistyped_key(relay, relay_key):
    """One changed character is caught by the checksum, and the message says so."""
    wrong = relay_key[:-5] + ("a" if relay_key[-5] != "a" else "b") + relay_key[-4:]

    error = refusal(relay, wrong, openai.AuthenticationError)

    assert error.code == "invalid_api_key"
    assert "checksum" in str(error)


def test_missing_key(relay):
    """No credential at all is an AuthenticationError that says how to send one."""
    with relay.openai("unused") as client, pytest.raises(openai.AuthenticationError) as caught:
        ask(client, extra_headers={"Authorization": openai.Omit()})

    assert caught.value.code == "missing_api_key"
    assert "Authorization: Bearer" in str(caught.value)


def test_disabled_key_and_disabled_user(relay, key_name):
    """A disabled key, and a key of a disabled user, are refused on the very next call and work again once enabled."""
    relay.admin("POST", "/api/v1/users", {"name": f"user-{key_name}"})
    key = relay.make_key(key_name, user=f"user-{key_name}")
    with relay.openai(key) as client:
        ask(client)
        relay.admin("PATCH", f"/api/v1/keys/{key_name}", {"disabled": True})
        assert refusal(relay, key, openai.AuthenticationError).code == "key_disabled"
        relay.admin("PATCH", f"/api/v1/keys/{key_name}", {"disabled": False})
        ask(client)
        relay.admin("PATCH", f"/api/v1/users/user-{key_name}", {"disabled": True})
        assert refusal(relay, key, openai.AuthenticationError).code == "key_disabled"
        relay.admin("PATCH", f"/api/v1/users/user-{key_name}", {"disabled": False})
        ask(client)


def test_deleted_key(relay, relay_key, key_name):
    """A deleted key is unknown on the very next call."""
    with relay.openai(relay_key) as client:
        ask(client)
        relay.admin("DELETE", f"/api/v1/keys/{key_name}")

        with pytest.raises(openai.AuthenticationError) as caught:
            ask(client)

    assert caught.value.code == "invalid_api_key"


def test_expired_key(relay, key_name):
    """A key stops working at its expiry, also while it is in the server's memory."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    key = relay.make_key(key_name, expires_at=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    with relay.openai(key) as client:
        ask(client)
    time.sleep(max(0, (soon - datetime.datetime.now(datetime.UTC)).total_seconds()) + 0.05)

    assert refusal(relay, key, openai.AuthenticationError).code == "key_expired"


def test_address_not_allowed(relay, key_name):
    """A key for other addresses is a PermissionDeniedError that names ours; X-Forwarded-For does not help."""
    key = relay.make_key(key_name, allowed_ips=["203.0.113.0/24", "2001:db8::/32"])

    error = refusal(
        relay, key, openai.PermissionDeniedError,
        extra_headers={"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Real-IP": "203.0.113.7"},
    )  # fmt: skip

    assert error.code == "ip_not_allowed"
    assert "127.0.0.1" in str(error)
    relay.admin("PATCH", f"/api/v1/keys/{key_name}", {"allowed_ips": ["127.0.0.0/8"]})
    with relay.openai(key) as client:
        ask(client)


@pytest.mark.parametrize("model", ["fake/chatt", "chat", "FAKE/CHAT", "fake/Chat"])
def test_unknown_model_names_the_nearest(relay, relay_key, model):
    """A mistyped model is a NotFoundError whose message names the near misses."""
    error = refusal(relay, relay_key, openai.NotFoundError, model=model)

    assert (error.code, error.param) == ("model_not_found", "model")
    assert "`fake/chat`" in str(error)


def test_near_misses_do_not_name_models_that_the_key_may_not_see(relay, key_name):
    """The suggestions come from the key's own model list."""
    key = relay.make_key(key_name, models=["acme/*"])

    assert "`fake/chat`" not in str(refusal(relay, key, openai.NotFoundError, model="fake/chatt"))


def test_model_not_allowed(relay, key_name):
    """A model outside the key's list is a PermissionDeniedError, and not in its list of models."""
    key = relay.make_key(key_name, models=["acme/*"])

    error = refusal(relay, key, openai.PermissionDeniedError)

    assert (error.code, error.param) == ("model_not_allowed", "model")
    with relay.openai(key) as client:
        assert [model.id for model in client.models.list()] == ["acme/writer"]
        assert ask(client, "acme/writer").model == "acme/writer"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("fake/chat")


def test_missing_scope(relay, key_name):
    """A key without model:inference is a PermissionDeniedError that names the scope."""
    key = relay.make_key(key_name, scopes=["usage:read"])

    error = refusal(relay, key, openai.PermissionDeniedError)

    assert error.code == "insufficient_scope"
    assert "model:inference" in str(error)


def test_bad_request(relay, relay_key):
    """A wrong type is a BadRequestError that names the field."""
    with relay.openai(relay_key) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="fake/chat", messages=PROMPT)  # type: ignore[arg-type]

    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")


# -- limits


def test_openai_errors_a_rate_limit_is_retried_after_retry_after_and_succeeds(relay, key_name):
    """The SDK waits for Retry-After and tries again: in the end both calls succeed, and the server saw the retry."""
    key = relay.make_key(key_name, limits=["1/3s"])
    with relay.openai(key, max_retries=3) as client:
        ask(client)
        answer = ask(client)

    key_id = relay.admin("GET", f"/api/v1/keys/{key_name}")["id"]
    records = relay.records("key_id = ? ORDER BY id", key_id)
    assert answer.choices
    assert records[2]["started_at"] - records[0]["started_at"] >= 3 - 0.001
    assert [record["end_reason"] for record in records] == ["complete", "refused", "complete"]


def test_openai_errors_a_rate_limit_says_when_to_come_again(relay, key_name):
    """Without retries it is a RateLimitError with rate_limit_exceeded, a Retry-After and no x-should-retry: false."""
    key = relay.make_key(key_name, limits=["1/10s"])
    with relay.openai(key) as client:
        ask(client)

    error = refusal(relay, key, openai.RateLimitError)

    assert error.code == "rate_limit_exceeded"
    assert 1 <= int(error.response.headers["retry-after"]) <= 10
    assert 0 < float(error.response.headers["retry-after-ms"]) <= 10_000
    assert "x-should-retry" not in error.response.headers


def test_openai_errors_a_spent_quota_is_not_retried(relay, key_name):
    """A spent day's quota is a RateLimitError with insufficient_quota after exactly one request."""
    key = relay.make_key(key_name, limits=["1/day@Asia/Shanghai"])
    with relay.openai(key, max_retries=5) as client:
        ask(client)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)

    key_id = relay.admin("GET", f"/api/v1/keys/{key_name}")["id"]
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(relay.records("key_id = ? AND end_reason = 'refused'", key_id)) == 1


def test_refused_calls_do_not_reach_the_engine(relay, engine: FakeEngine, key_name):
    """A call that a limit turns away costs the engine nothing."""
    key = relay.make_key(key_name, limits=["1/day"])
    with relay.openai(key) as client:
        ask(client, extra_body={"marker": f"first-{key_name}"})
        with pytest.raises(openai.RateLimitError):
            ask(client, extra_body={"marker": f"second-{key_name}"})

    assert len(engine.calls_of(f"first-{key_name}")) == 1
    assert engine.calls_of(f"second-{key_name}") == []


def test_openai_errors_an_engine_that_is_away_may_be_asked_again(make_server: MakeServer):
    """While the engine is away the SDK gets an InternalServerError 503 that it may retry."""
    gone = FakeEngine().start()
    server = make_server(gone.url).start()
    gone.stop()

    with server.openai() as client, pytest.raises(openai.InternalServerError) as caught:
        ask(client)

    assert (caught.value.status_code, caught.value.code) == (503, "backend_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1
