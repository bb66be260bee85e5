"""The way to an engine and back: what passes unchanged, what is repaired, and every way an engine can fail."""

import asyncio
import json
import socket
import time

import openai
import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get, post, post_bytes
from tests.fakes.openai_engine import (
    WORDS,
    EngineCall,
    FakeEngine,
    answer_well,
    chunk,
    completion,
    usage_chunk,
)

CHAT = "/v1/chat/completions"


@pytest.fixture
def ask(relay, relay_key):
    """A chat call to the relay; fields beyond the usual ones go into the body."""

    def ask(path: str = CHAT, *, headers: tuple[str, ...] = (), **fields) -> RawAnswer:
        return post(relay.port, path, chat(**fields), key=relay_key, headers=headers)

    return ask


@pytest.fixture
def scripted(ask, engine, relay):
    """A call that the engine answers by a script; the answer, and the call as the engine saw it."""

    def scripted(script, **fields):
        name = engine.script(script)
        answer = ask(script=name, **fields)
        return answer, engine.calls_of(name)

    return scripted


def assert_failed(answer: RawAnswer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.error["code"] == code
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


def error_event(answer: RawAnswer) -> dict:
    """The error that ends a stream; [DONE] must not follow it."""
    assert answer.is_complete
    assert "[DONE]" not in answer.events
    return json.loads(answer.events[-1])["error"]


# -- what passes


def test_body_reaches_the_engine_byte_for_byte(relay, relay_key, engine):
    """Unknown fields, odd spacing, number forms and escapes arrive as they were sent (a body that nothing is changed in)."""
    body = (
        '{ "model" :"fake/chat",\n\t"messages":[{"role":"user","content":"h\\u6c49 \\ud83d\\ude00 汉"}],'
        '"chat_template_kwargs":{"enable_thinking":false}, "top_k": 1.50, "seed":12345678901234567890,"extra":null,"marker":"byte-for-byte" }'
    ).encode()

    answer = post(relay.port, CHAT, body, key=relay_key)

    (call,) = engine.calls_of("byte-for-byte")
    assert answer.status == 200
    assert call.body == body
    assert call.path == "/v1/chat/completions"
    assert call.headers["content-type"] == "application/json"


def test_values_keep_their_bytes_in_a_body_that_is_written_anew(relay, relay_key, engine):
    """Even where the body must be rewritten, each field's value arrives as it was sent."""
    body = (
        b'{"model":"gpt-4o-mini","messages":[ {"role":"user", "content":"h\\u00e9 \\ud83d\\ude00"} ],"top_k": 1.50,'
        b'"seed":12345678901234567890123,"t":1e-7,"marker":"values-keep"}'
    )

    post(relay.port, CHAT, body, key=relay_key)

    (call,) = engine.calls_of("values-keep")
    for part in (
        b'[ {"role":"user", "content":"h\\u00e9 \\ud83d\\ude00"} ]',
        b"1.50",
        b"12345678901234567890123",
        b"1e-7",
    ):
        assert part in call.body
    assert call.json["model"] == "fake/chat"


def test_answer_reaches_the_caller_byte_for_byte(scripted):
    """A unary answer is handed on as it came, unknown fields included."""
    raw = b'{ "id":"x", "choices" : [], "model":"fake/chat", "reasoning_content":"\\u00e9", "n": 1.50, "usage":null }'

    async def odd(call: EngineCall) -> None:
        await call.answer(raw)

    answer, _ = scripted(odd)

    assert answer.body == raw


def test_only_stream_options_are_changed_in_a_streamed_body(relay, relay_key, engine):
    """Usage is asked for, every other field keeps its bytes."""
    body = b'{"model":"fake/chat","messages":[{"role":"user","content":"a"}],"stream":true,"top_p":0.10,"big":12345678901234567890123,"marker":"only-options"}'

    post(relay.port, CHAT, body, key=relay_key)

    (call,) = engine.calls_of("only-options")
    assert b'"top_p":0.10' in call.body
    assert b"12345678901234567890123" in call.body
    assert call.json["stream_options"] == {"include_usage": True}


def test_nothing_of_the_caller_s_credentials_reaches_the_engine(relay, relay_key, engine):
    """The caller's key, cookies and addresses stay here."""
    post(
        relay.port,
        CHAT,
        chat(marker="no-credentials"),
        key=relay_key,
        headers=("cookie: a=b", "x-forwarded-for: 1.2.3.4"),
    )

    (call,) = engine.calls_of("no-credentials")
    assert relay_key not in str(call.headers) + call.body.decode()
    assert "authorization" not in call.headers
    assert "cookie" not in call.headers
    assert call.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("asked", "upstream"), [("acme/writer", "plain-chat:8b"), ("gpt-4o-mini", "fake/chat")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_renamed_and_aliased_models_echo_the_requested_name(ask, engine, asked, upstream, stream):
    """The engine is asked for its own name, the caller reads theirs, in every chunk (W19)."""
    marker = f"echo-{asked}-{stream}"

    answer = ask(model=asked, stream=stream, marker=marker)

    (call,) = engine.calls_of(marker)
    assert call.json["model"] == upstream
    names = {each["model"] for each in answer.chunks} if stream else {answer.json["model"]}
    assert names == {asked}


@pytest.mark.parametrize("stream", [False, True])
def test_alias_is_echoed_although_the_engine_says_another_name(scripted, stream):
    """An engine that reports a file or a dated version does not change what the caller reads (W19)."""

    async def other_name(call: EngineCall) -> None:
        fields = {**call.json, "model": "llama-3.1-8b.Q6_K.gguf"}
        if not stream:
            await call.answer(completion(fields))
            return
        await call.stream_head()
        await call.event(chunk(fields, {"role": "assistant", "content": "a"}))
        await call.event(chunk(fields, {}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    answer, _ = scripted(other_name, model="gpt-4o-mini", stream=stream)

    names = {each["model"] for each in answer.chunks} if stream else {answer.json["model"]}
    assert names == {"gpt-4o-mini"}


def test_model_name_inside_the_text_is_not_renamed(scripted):
    """Text that looks like a model field stays as the engine wrote it."""
    text = '"model": "fake/chat", "model":"fake/chat"'

    async def talks_of_itself(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"role": "assistant", "content": text}))
        await call.event(chunk(call.json, {}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    answer, _ = scripted(talks_of_itself, model="gpt-4o-mini", stream=True)

    assert answer.chunks[0]["choices"][0]["delta"]["content"] == text


def test_original_name_of_a_renamed_model_is_unknown(ask):
    """After a rename only the new name is offered."""
    assert_failed(ask(model="plain-chat:8b"), 404, "model_not_found")


# -- streams


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_events_split_at_any_byte(scripted, end, size):
    """Wherever the network cuts the stream, the caller gets the same events."""

    async def in_pieces(call: EngineCall) -> None:
        fields = call.json
        chunks = [
            chunk(fields, {"role": "assistant", "content": ""}),
            chunk(fields, {"content": "汉字 \n\n data: x"}),
        ]
        chunks += [chunk(fields, {}, "stop"), usage_chunk(fields)]
        text = b": ping" + end + end
        text += b"".join(
            b"data: " + json.dumps(each, ensure_ascii=False).encode() + end + end for each in chunks
        )
        text += b"data: [DONE]" + end + end
        await call.stream_head()
        for start in range(0, len(text), size):
            await call.chunk(text[start : start + size])
            if size < 8 and start % (50 * size) == 0:
                await asyncio.sleep(0.001)
        await call.chunk(b"")

    answer, _ = scripted(in_pieces, stream=True)

    assert answer.is_complete
    assert answer.events[-1] == "[DONE]"
    assert answer.events.count("[DONE]") == 1
    assert [each["choices"][0]["finish_reason"] for each in answer.chunks] == [None, None, "stop"]
    assert answer.chunks[1]["choices"][0]["delta"]["content"] == "汉字 \n\n data: x"
    assert b": ping" in answer.body


def test_stream_s_headers(ask):
    """A stream says what it is, is not cached or buffered by proxies, and carries the request id."""
    answer = ask(stream=True)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"].startswith("no-cache")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"] == answer.headers["request-id"]


def test_events_arrive_one_by_one(relay, relay_key):
    """Each event goes out when it comes in, not when the stream is over."""
    with RawConnection(relay.port) as connection:
        started = time.monotonic()
        connection.send(post_bytes(CHAT, chat(stream=True, pause_s=0.2), key=relay_key))
        connection.read_head()
        connection.read_chunk()
        first = time.monotonic() - started
        while connection.read_chunk():
            pass
        whole = time.monotonic() - started

    assert first < 0.5 * whole


def test_usage_chunk_in_a_strange_spelling_is_stripped_too(scripted):
    """An engine that puts a blank before the colon, or the usage first, does not bring clients down."""

    async def strange(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
        await call.event(chunk(call.json, {}, "stop"))
        await call.event(
            b'{ "usage" : { "prompt_tokens" : 5, "completion_tokens" : 4, "total_tokens" : 9 }, "choices" : [ ] }'
        )
        await call.event(b"[DONE]")
        await call.chunk(b"")

    answer, _ = scripted(strange, stream=True)

    assert all(each["choices"] for each in answer.chunks)


@pytest.mark.parametrize("field", ['"choices": null', '"choices":null', '"choices" : null'])
def test_null_choices_are_repaired(scripted, field):
    """`choices: null` becomes an empty list before a client indexes it (W23)."""

    async def null_choices(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(
            b'{"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "fake/chat", %b}'
            % field.encode()
        )
        await call.event(chunk(call.json, {"role": "assistant", "content": "a"}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    answer, _ = scripted(null_choices, stream=True)

    assert all(isinstance(each["choices"], list) for each in answer.chunks)


def test_tool_calls_without_index_are_repaired(relay, relay_key, engine):
    """The stock SDK reads a stream of tool calls whose engine left out `index` and `type` (W22)."""

    async def tools(call: EngineCall) -> None:
        deltas = [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": ""}}],
            },
            {"tool_calls": [{"function": {"arguments": '{"a":'}}]},
            {"tool_calls": [{"index": None, "function": {"arguments": "1}"}}]},
        ]
        await call.stream_head()
        for delta in deltas:
            await call.event(chunk(call.json, delta))
        await call.event(chunk(call.json, {}, "tool_calls"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    with relay.openai(relay_key) as client:
        stream = client.chat.completions.create(
            model="fake/chat",
            messages=chat()["messages"],
            stream=True,
            extra_body={"script": engine.script(tools)},
        )
        calls = [piece for each in stream for piece in each.choices[0].delta.tool_calls or []]

    assert [call.index for call in calls] == [0, 0, 0]
    assert (calls[0].type, calls[0].function.name) == ("function", "f")
    assert "".join(call.function.arguments for call in calls) == '{"a":1}'


def test_error_in_mid_stream_is_the_last_event(scripted, relay):
    """An engine's error event is passed on, nothing follows it, and the record says so (W11)."""

    async def fails(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
        await call.event(
            {"error": {"message": "out of memory", "type": "server_error", "code": None, "param": None}}
        )
        await call.event(b"[DONE]")
        await call.chunk(b"")

    answer, _ = scripted(fails, stream=True)

    assert error_event(answer)["message"] == "out of memory"
    assert relay.record_of(answer.headers["x-request-id"])["end_reason"] == "upstream_error"


async def closes_in_mid_event(call: EngineCall) -> None:
    await call.stream_head()
    await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
    await call.chunk(b'data: {"id": "half of an ev')
    call.close()


async def resets_in_mid_stream(call: EngineCall) -> None:
    await call.stream_head()
    await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
    await asyncio.sleep(0.05)
    call.close(reset=True)


async def closes_an_unframed_stream(call: EngineCall) -> None:
    await call.head("content-type: text/event-stream", "connection: close")
    await call.send(
        b"data: " + json.dumps(chunk(call.json, {"role": "assistant", "content": "a"})).encode() + b"\n\n"
    )
    await asyncio.sleep(0.02)
    call.close()


async def breaks_the_framing(call: EngineCall) -> None:
    await call.stream_head()
    await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
    await call.send(b"this is no chunk\r\n")
    await call.wait_gone(2)


async def falls_silent(call: EngineCall) -> None:
    await call.stream_head()
    await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
    await call.wait_gone(6)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (closes_in_mid_event, "backend_error"), (resets_in_mid_stream, "backend_error"),
        (closes_an_unframed_stream, "backend_error"), (breaks_the_framing, "backend_error"),
        (falls_silent, "backend_timeout"),
    ],
)  # fmt: skip
def test_stream_that_breaks_off_ends_with_an_error_event(scripted, relay, script, code):
    """A cut stream is never passed off as a complete one: an error event ends it, properly framed, without [DONE]."""
    answer, _ = scripted(script, stream=True)

    assert error_event(answer)["code"] == code
    assert answer.chunks[0]["choices"][0]["delta"]["content"] == "a"
    record = relay.record_of(answer.headers["x-request-id"])
    assert record["end_reason"] == ("timeout" if code == "backend_timeout" else "upstream_error")


def test_the_sdk_raises_when_a_stream_breaks_off(relay, relay_key, engine):
    """The stock SDK turns the last event into an APIError instead of a silently short answer."""
    with relay.openai(relay_key) as client:
        stream = client.chat.completions.create(
            model="fake/chat", messages=chat()["messages"], stream=True,
            extra_body={"script": engine.script(closes_in_mid_event)},
        )  # fmt: skip
        with pytest.raises(openai.APIError, match="closed the connection"):
            list(stream)


def test_stream_without_done_at_its_end_is_complete(scripted):
    """An engine that ends its body properly but forgets [DONE] has answered; the caller gets a [DONE]."""

    async def no_done(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
        await call.event(chunk(call.json, {}, "stop"))
        await call.chunk(b"")

    answer, _ = scripted(no_done, stream=True)

    assert answer.events[-1] == "[DONE]"


def test_engine_that_answers_a_stream_with_one_body(scripted):
    """A caller that asked for a stream and an engine that does not stream: the answer still arrives."""

    async def unary(call: EngineCall) -> None:
        await call.answer(completion(call.json))

    answer, _ = scripted(unary, stream=True)

    assert answer.status == 200
    assert answer.json["choices"]


def test_owasp_api10_an_event_without_end_does_not_fill_the_memory(scripted):
    """An event longer than any real one ends the stream."""

    async def endless(call: EngineCall) -> None:
        await call.stream_head()
        try:
            for _ in range(400):
                await call.chunk(b"data: " + b"x" * 65536)
        except OSError:
            return
        await call.chunk(b"")

    answer, _ = scripted(endless, stream=True)

    assert error_event(answer)["code"] == "backend_error"


# -- answers that are none


async def not_json(call: EngineCall) -> None:
    await call.answer(b"<html>It works!</html>", "content-type: text/html")


async def empty(call: EngineCall) -> None:
    await call.answer(b"")


async def half_json(call: EngineCall) -> None:
    await call.answer(b'{"id": "x", "choi')


async def broken_utf8(call: EngineCall) -> None:
    await call.answer(b'{"id": "\xff"}')


async def a_list(call: EngineCall) -> None:
    await call.answer(b"[]")


async def not_http(call: EngineCall) -> None:
    await call.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    await call.wait_gone(2)


async def too_short(call: EngineCall) -> None:
    await call.send(
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{"id": "x"}'
    )
    call.close()


async def two_lengths(call: EngineCall) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}")
    await call.wait_gone(1)


async def closes_at_once(call: EngineCall) -> None:
    call.close()


async def resets_at_once(call: EngineCall) -> None:
    call.close(reset=True)


async def closes_in_the_head(call: EngineCall) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    call.close()


async def switches_protocols(call: EngineCall) -> None:
    await call.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    await call.wait_gone(1)


async def redirects(call: EngineCall) -> None:
    await call.answer(b"", "location: http://169.254.169.254/latest", status="302 Found")


async def compressed(call: EngineCall) -> None:
    await call.answer(b"\x1f\x8b\x08\x00garbage", "content-encoding: gzip")


async def status_500(call: EngineCall) -> None:
    await call.answer(
        {"error": {"message": "Traceback: /srv/secret/path.py"}}, status="500 Internal Server Error"
    )


async def status_500_text(call: EngineCall) -> None:
    await call.answer(
        b"Traceback: /srv/secret/path.py", "content-type: text/plain", status="500 Internal Server Error"
    )


@pytest.mark.parametrize(
    "script",
    [not_json, empty, half_json, a_list, not_http, too_short, two_lengths, closes_at_once, resets_at_once,
     closes_in_the_head, switches_protocols, redirects, compressed, status_500, status_500_text, broken_utf8],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_owasp_api10_garbage_from_the_engine_is_a_502(scripted, relay, script, stream):
    """Whatever an engine sends that is no answer, the caller gets our 502 and nothing of the garbage."""
    answer, _ = scripted(script, stream=stream)

    assert_failed(answer, 502, "backend_error")
    assert "secret" not in answer.body.decode()
    record = relay.record_of(answer.headers["x-request-id"])
    assert (record["status"], record["end_reason"], record["charged"]) == (502, "upstream_error", 0)


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        ("401 Unauthorized", 502, "backend_rejected_credentials"), ("403 Forbidden", 502, "backend_rejected_credentials"),
        ("429 Too Many Requests", 429, "backend_rate_limited"), ("503 Service Unavailable", 503, "backend_unavailable"),
        ("504 Gateway Timeout", 504, "backend_timeout"), ("408 Request Timeout", 504, "backend_timeout"),
        ("529 Overloaded", 502, "backend_error"),
    ],
)  # fmt: skip
def test_openai_errors_the_status_of_an_engine_is_mapped(scripted, status, expected, code):
    """What only the operator can mend is not passed off as the caller's fault; Retry-After is kept or added."""

    async def refuses(call: EngineCall) -> None:
        await call.answer(
            {"error": {"message": "Incorrect API key provided: sk-secret", "code": "x"}},
            "retry-after: 7",
            status=status,
        )

    answer, _ = scripted(refuses)

    assert_failed(answer, expected, code)
    assert "sk-secret" not in answer.body.decode()
    if expected in (429, 503):
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("body", [b'{"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages", "type": "invalid_request_error"}}', b'{"error": "too long"}', b'{"detail": "too long"}', b"too long", b'{"object": "error", "message": "too long"}'])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_errors_that_the_caller_can_mend_pass_in_one_shape(scripted, body, stream):
    """A 400 in any engine's shape reaches the caller with its message, in OpenAI's shape (W8)."""

    async def refuses(call: EngineCall) -> None:
        await call.answer(body, status="400 Bad Request")

    answer, _ = scripted(refuses, stream=stream)

    assert answer.status == 400
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert "too long" in answer.error["message"]


def test_openai_errors_a_conflict_becomes_a_status_that_sdks_do_not_retry(scripted):
    """409 is retried by the SDKs, so a permanent refusal must not carry it (W9)."""

    async def conflict(call: EngineCall) -> None:
        await call.answer({"error": {"message": "no"}}, status="409 Conflict")

    answer, _ = scripted(conflict)

    assert answer.status == 400


def test_owasp_api10_header_values_of_the_engine_cannot_add_headers(scripted):
    """What the engine puts into its headers does not become headers of ours."""

    async def smuggles(call: EngineCall) -> None:
        await call.answer(
            completion(call.json),
            "x-lingpai-dropped-params: a",
            "set-cookie: a=b",
            "server: evil",
            "access-control-allow-origin: evil",
        )

    answer, _ = scripted(smuggles)

    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert answer.headers.get("server") != "evil"
    assert answer.headers.get("access-control-allow-origin") != "evil"


def test_interim_answers_are_skipped(scripted):
    """100, 102 and 103 before the answer change nothing."""

    async def interim(call: EngineCall) -> None:
        await call.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 99\r\n\r\n"
        )
        await asyncio.sleep(0.01)
        await call.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await answer_well(call)

    answer, _ = scripted(interim)

    assert answer.json["choices"][0]["message"]["content"] == "Good day to you"


@pytest.mark.parametrize("framing", ["close", "chunked", "HTTP/1.0"])
def test_unary_answers_in_any_framing(scripted, framing):
    """Answers without a length, in chunks, or of an HTTP/1.0 engine are complete answers."""

    async def framed(call: EngineCall) -> None:
        body = json.dumps(completion(call.json)).encode()
        if framing == "chunked":
            await call.head("content-type: application/json", "transfer-encoding: chunked")
            for start in range(0, len(body), 7):
                await call.chunk(body[start : start + 7])
            await call.chunk(b"")
        else:
            version = b"1.0" if framing == "HTTP/1.0" else b"1.1"
            await call.send(b"HTTP/%b 200 OK\r\ncontent-type: application/json\r\n\r\n%b" % (version, body))
            call.close()

    answer, _ = scripted(framed)

    assert answer.json["choices"][0]["message"]["content"] == "Good day to you"
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_engine_that_answers_before_it_has_read_everything(scripted):
    """An answer of several megabytes arrives whole."""
    text = "汉" * 2_000_000

    async def large(call: EngineCall) -> None:
        answer = completion(call.json)
        answer["choices"][0]["message"]["content"] = text
        await call.answer(answer)

    answer, _ = scripted(large)

    assert answer.json["choices"][0]["message"]["content"] == text


# -- connections to the engine


def test_engine_that_is_down_and_comes_back(make_server: MakeServer):
    """While the engine is away calls get 503 with Retry-After; when it is back they work again."""
    engine = FakeEngine().start()
    server = make_server(engine.url).start()
    try:
        before = post(server.port, CHAT, chat(), key=server.key)
    finally:
        engine.stop()

    down = post(server.port, CHAT, chat(), key=server.key)
    with socket.socket() as blocker:  # the port is taken, but nobody answers there
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocker.bind(("127.0.0.1", engine.port))
        still_down = post(server.port, CHAT, chat(stream=True), key=server.key)

    assert before.status == 200
    for answer in (down, still_down):
        assert_failed(answer, 503, "backend_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert get(server.port, "/readyz").status in (200, 503)


def test_owasp_api10_an_engine_that_does_not_answer_in_time(scripted, relay):
    """Silence before the first byte is a 504, and the engine's connection is closed."""

    async def silent(call: EngineCall) -> None:
        await call.wait_gone(6)

    answer, (call,) = scripted(silent)

    assert_failed(answer, 504, "backend_timeout")
    assert relay.record_of(answer.headers["x-request-id"])["end_reason"] == "timeout"
    assert_seen_as_gone(call)


def test_dead_pooled_connection_is_retried_once(ask, engine, relay):
    """An engine that closed an idle connection just now costs a retry, not an error, and the record counts it."""

    async def answers_then_closes_on_the_next_request(call: EngineCall) -> None:
        await answer_well(call)
        await call.swallow_next_request()
        call.close()

    async def well(call: EngineCall) -> None:
        await answer_well(call)

    # the connection that this call uses is the one that the next call takes from the pool
    ask(script=engine.script(answers_then_closes_on_the_next_request))
    name = engine.script(well)
    answer = ask(script=name)

    assert answer.status == 200
    assert relay.record_of(answer.headers["x-request-id"])["retries"] == 1
    assert len(engine.calls_of(name)) == 1


def test_call_whose_connection_dies_twice_is_not_repeated_for_ever(scripted, relay):
    """After one retry it is an error."""
    answer, calls = scripted(closes_at_once)

    assert_failed(answer, 502, "backend_error")
    assert len(calls) <= 2


def test_call_is_not_repeated_after_the_first_byte(scripted):
    """An answer that has begun is never asked for again."""
    answer, calls = scripted(too_short)

    assert answer.status == 502
    assert len(calls) == 1


@pytest.mark.parametrize("extra", [b"garbage", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"evil": "yes"}', b"HTTP/1.1 200 OK\r\nx: "])  # fmt: skip
def test_owasp_api10_bytes_behind_an_answer_do_not_reach_the_next_caller(ask, engine, extra):
    """What an engine sends beyond its answer spoils its connection, and no other call."""

    async def says_too_much(call: EngineCall) -> None:
        body = json.dumps(completion(call.json)).encode()
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b%b"
            % (len(body), body, extra)
        )

    first = ask(script=engine.script(says_too_much))
    followers = [ask(marker=f"follower-{number}") for number in range(3)]

    assert first.status == 200
    for answer in followers:
        assert answer.status == 200, answer
        assert answer.json["choices"][0]["message"]["content"] == "Good day to you"


def test_connections_to_the_engine_are_reused(relay, relay_key, engine):
    """One caller after the other uses one connection."""
    for _ in range(30):
        post(relay.port, CHAT, chat(marker="reuse"), key=relay_key)

    assert len({call.connection for call in engine.calls_of("reuse")}) <= 2


def test_engine_key_is_sent_and_never_shown(make_server: MakeServer):
    """The provider's key from the environment goes to the provider, and to nobody else."""
    secret = "sk-provider-canary-7777"
    engine = FakeEngine(api_key=secret).start()
    config = f'[[models]]\ntarget = "{engine.url}"\nname = "provider"\napi_key_env = "PROVIDER_KEY"\n'
    server = make_server(config=config, environment={"PROVIDER_KEY": secret}).start()
    try:
        good = post(server.port, CHAT, chat(), key=server.key)
        engine.api_key = "sk-another"
        refused = post(server.port, CHAT, chat(), key=server.key)
        streamed = post(server.port, CHAT, chat(stream=True), key=server.key)
        checked = server.cli("models", "check", "fake/chat", "--json")
        shown = server.cli("models", "show", "fake/chat", "--json")
    finally:
        engine.stop()

    assert good.status == 200
    for answer in (refused, streamed):
        assert_failed(answer, 502, "backend_rejected_credentials")
    told = [str(answer) for answer in (good, refused, streamed)]
    told += [checked.stdout, checked.stderr, shown.stdout, server.stdout, server.stderr]
    assert not any(secret in text for text in told)
    for path in server.data.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


# -- connections to the caller


def assert_seen_as_gone(call: EngineCall) -> None:
    """The engine sees that nobody waits any more. How soon: test_e2e_callers_who_leave.py."""
    deadline = time.monotonic() + 3
    while call.gone_at is None:
        assert time.monotonic() < deadline, "the engine was never told"
        time.sleep(0.01)


def test_caller_who_leaves_in_mid_stream(relay, relay_key, engine):
    """The engine sees the close, and the record says client_gone with what was used until then."""

    async def endless(call: EngineCall) -> None:
        await call.stream_head()
        await call.event(chunk(call.json, {"role": "assistant", "content": "a"}))
        await call.wait_gone(5)

    name = engine.script(endless)
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, chat(stream=True, script=name), key=relay_key))
        _, headers = connection.read_head()
        connection.read_chunk()

    record = relay.record_of(headers["x-request-id"])
    (call,) = engine.calls_of(name)
    assert_seen_as_gone(call)
    assert (record["end_reason"], record["status"], record["charged"]) == ("client_gone", 200, 1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_caller_who_leaves_before_the_answer(relay, relay_key, engine, how):
    """Leaving while the engine still thinks ends the engine's work, too."""

    async def thinks(call: EngineCall) -> None:
        await call.wait_gone(5)

    name = engine.script(thinks)
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, chat(script=name), key=relay_key))
        while not engine.calls_of(name):
            time.sleep(0.005)
        if how == "reset":
            connection.reset()

    (call,) = engine.calls_of(name)
    assert_seen_as_gone(call)
    assert relay.record_of(call.headers["x-request-id"])["end_reason"] == "client_gone"


async def pours(call: EngineCall) -> None:
    """50 MB of events, as fast as they are taken."""
    await call.stream_head()
    event = b"data: " + json.dumps(chunk(call.json, {"content": "x" * 60_000})).encode() + b"\n\n"
    try:
        for _ in range(50_000_000 // len(event)):
            await call.chunk(event)
        await call.event(b"[DONE]")
        await call.chunk(b"")
    except OSError:
        return


def test_slow_reader_pauses_the_engine(relay, relay_key, engine):
    """While the caller reads nothing the engine can send only what fits into buffers; then everything arrives."""
    name = engine.script(pours)
    with RawConnection(relay.port, receive_buffer=65536, timeout=20) as connection:
        connection.send(post_bytes(CHAT, chat(stream=True, script=name), key=relay_key))
        connection.read_head()
        time.sleep(0.7)
        (call,) = engine.calls_of(name)
        sent_unread = call.sent
        received = b""
        total = 0
        while data := connection.read_chunk():
            total += len(data)
            received = (received + data)[-100:]

    assert sent_unread < 12_000_000
    assert total > 49_000_000
    assert received.endswith(b"data: [DONE]\n\n")


def test_slow_reader_s_pause_is_not_taken_for_the_engine_s_silence(relay, relay_key, engine):
    """A caller that pauses for longer than the engine's idle time-out still gets the whole stream."""
    name = engine.script(pours)
    with RawConnection(relay.port, receive_buffer=65536, timeout=20) as connection:
        connection.send(post_bytes(CHAT, chat(stream=True, script=name), key=relay_key))
        connection.read_head()
        time.sleep(3)  # idle_timeout_s of this server is 1.5
        last = b""
        while data := connection.read_chunk():
            last = data

    assert b"[DONE]" in last
    assert b'"error"' not in last


def test_pipelined_second_call_does_not_mix_with_the_first(relay, relay_key):
    """A second POST sent before the first is answered is not served, and leaves the first answer alone."""
    post(relay.port, CHAT, chat(), key=relay_key)  # the key is in memory from here on
    first = post_bytes(CHAT, chat("one"), key=relay_key)
    second = post_bytes(CHAT, chat("two", model="acme/writer"), key=relay_key)
    with RawConnection(relay.port) as connection:
        connection.send(first + second)
        answer = connection.read_answer()
        rest = connection.receive()

    assert answer.status == 200, answer
    assert answer.json["model"] == "fake/chat"
    assert rest == b"" or b'"model":"acme/writer"' in rest.replace(b'": "', b'":"')


def test_pipelined_call_while_the_key_is_being_looked_up(relay, key_name):
    """The same on a key's very first use, when the first call waits for the database."""
    key = relay.make_key(key_name)
    request = post_bytes(CHAT, chat("one"), key=key)
    with RawConnection(relay.port) as connection:
        connection.send(request + post_bytes(CHAT, chat("two"), key=key))
        answer = connection.read_answer()

    assert answer.status == 200, answer


@pytest.mark.parametrize("first", ["GET", "POST"])
def test_pipelined_call_and_other_request(relay, relay_key, first):
    """A model call behind a GET, and a GET behind a model call: the first is answered right."""
    requests = [b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", post_bytes(CHAT, chat(), key=relay_key)]
    with RawConnection(relay.port) as connection:
        connection.send(b"".join(requests if first == "GET" else requests[::-1]))
        answer = connection.read_answer()

    assert answer.status == 200
    assert ("status" in answer.json) == (first == "GET")


def test_call_sent_byte_by_byte(relay, relay_key):
    """However small the pieces in which a call arrives, it is one call."""
    with RawConnection(relay.port) as connection:
        for byte in post_bytes(CHAT, chat(), key=relay_key):
            connection.send(bytes([byte]))
        answer = connection.read_answer()

    assert answer.status == 200


def test_chunked_body(relay, relay_key, engine):
    """A body in chunks is put together."""
    body = json.dumps(chat(marker="chunked-body")).encode()
    request = post_bytes(CHAT, b"", key=relay_key).replace(
        b"content-length: 0", b"transfer-encoding: chunked"
    )
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(body[n : n + 5]), body[n : n + 5]) for n in range(0, len(body), 5)
    )

    answer = exchange(relay.port, request + pieces + b"0\r\n\r\n")

    assert answer.status == 200
    assert engine.calls_of("chunked-body")[0].body == body


def test_many_calls_over_one_connection(relay, relay_key):
    """A connection serves call after call: unary, streams, refusals and other requests in turn."""
    with RawConnection(relay.port) as connection:
        for number in range(60):
            if number % 4 == 3:
                connection.send(
                    b"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n\r\n"
                    % relay_key.encode()
                )
            else:
                model = "no/such" if number % 4 == 2 else "fake/chat"
                connection.send(post_bytes(CHAT, chat(model=model, stream=number % 4 == 1), key=relay_key))
            answer = connection.read_answer()
            assert answer.status == (404 if number % 4 == 2 else 200), (number, answer)
            assert answer.is_complete


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_caller(relay, relay_key, stream):
    """An HTTP/1.0 caller gets an answer without chunks, and the connection closes."""
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, chat(stream=stream), key=relay_key, version="1.0"))
        answer = connection.read_answer()
        is_closed = connection.is_closed_within(1)

    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert (answer.events[-1] == "[DONE]") if stream else answer.json["choices"]
    assert is_closed


@pytest.mark.parametrize("stream", [False, True])
def test_connection_close_is_honoured(relay, relay_key, stream):
    """With `Connection: close` the answer says the same and the connection closes."""
    with RawConnection(relay.port) as connection:
        connection.send(post_bytes(CHAT, chat(stream=stream), key=relay_key, headers=("connection: close",)))
        answer = connection.read_answer()
        is_closed = connection.is_closed_within(1)

    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert is_closed


def test_absolute_form_target(relay, relay_key):
    """The absolute form of the target means the same (RFC 9112, section 3.2.2)."""
    assert post(relay.port, f"http://lingpai.test{CHAT}", chat(), key=relay_key).status == 200


def test_hundred_streams_at_once_do_not_mix(relay, relay_key, engine):
    """Each of many concurrent streams gets its own words only."""

    async def echoes(call: EngineCall) -> None:
        word = call.json["messages"][0]["content"]
        await call.stream_head()
        for _ in range(10):
            await call.event(chunk(call.json, {"content": word}))
            await asyncio.sleep(0.002)
        await call.event(b"[DONE]")
        await call.chunk(b"")

    name = engine.script(echoes)
    connections = [RawConnection(relay.port) for _ in range(100)]
    try:
        for number, connection in enumerate(connections):
            connection.send(post_bytes(CHAT, chat(f"<{number}>", stream=True, script=name), key=relay_key))
        answers = [connection.read_answer() for connection in connections]
    finally:
        for connection in connections:
            connection.close()

    for number, answer in enumerate(answers):
        words = {each["choices"][0]["delta"]["content"] for each in answer.chunks}
        assert words == {f"<{number}>"}
        assert len(answer.chunks) == 10
    assert len({answer.headers["x-request-id"] for answer in answers}) == 100


def test_a_good_engine_s_stream_is_what_the_tests_think(ask):
    """A chunk for the role, for each word, for the end and for the usage, so that the tests above test what they say."""
    answer = ask(stream=True, stream_options={"include_usage": True})

    *with_choices, usage = answer.chunks
    assert [each["choices"][0]["delta"].get("content") for each in with_choices] == ["", *WORDS, None]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 9)
    assert answer.events[-1] == "[DONE]"


@pytest.mark.slow
def test_half_sent_header_is_not_kept_for_ever(half_sent_head):
    """A connection whose request head never ends is closed within 30 seconds (security.md 3.4)."""
    connection, opened_at = half_sent_head

    assert connection.is_closed_within(max(opened_at + 31 - time.monotonic(), 0.1))


def test_text_of_a_failing_engine_is_not_logged(make_server: MakeServer, engine):
    """An engine's error may repeat the prompt or a key: the log names backend, status and call only."""

    async def failing(call: EngineCall) -> None:
        await call.answer({"error": {"message": "prompt-canary-4711"}}, status="500 Oops")

    server = make_server(engine.url).start()

    answer = post(server.port, CHAT, chat(script=engine.script(failing)), key=server.key)

    assert_failed(answer, 502, "backend_error")
    assert "status 500" in server.stderr
    assert "canary" not in server.stderr
