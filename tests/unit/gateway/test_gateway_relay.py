"""Step 5: to the backend and back, unary or as a stream, whatever the backend makes of it."""

import json

import pytest
from gateway_fakes import GOOD, STREAM, STREAM_HEAD, FakeBackend, FakeFront, chunk, model, stream, usage_chunk

from lingpai.lane.upstream import Failure

# -- what is sent


def test_body_goes_to_the_backend_byte_for_byte_when_nothing_must_change(served, front):
    body = b'{ "model":"acme/chat" ,"messages":[{"content":"\\u4f60"}],"seed":12345678901234567890123,"top_k":0.10}'

    served.call(body=body, front=front)

    assert served.link.sent == [(b"/chat/completions", body)]


@pytest.mark.parametrize("extra", [b'"mod\\u0065l":"acme/chat"', b'"model":"acme/chat"'])
def test_body_that_names_the_model_twice_is_made_unambiguous(served, front, extra):
    served.call(body=b'{"messages":[{}],' + extra + b',"model":"acme/chat"}', front=front)

    ((_, sent),) = served.link.sent
    pairs = json.loads(sent, object_pairs_hook=list)
    assert sorted(pairs) == [("messages", [[]]), ("model", "acme/chat")]


@pytest.mark.parametrize("name", ["Model", "MODEL", "N", "Stream", "Messages", "Stream_Options"])
def test_body_with_a_second_spelling_of_a_field_is_refused(served, front, error_of, name):
    served.call(body={"messages": [{}], name: "evil", "model": "acme/chat"}, front=front)

    assert (error_of(front)["code"], error_of(front)["param"]) == ("invalid_request", name)
    assert served.link.sent == []


@pytest.mark.parametrize(
    "extra", [{"Model": "evil"}, {"Stream": True}, {"messages": [{}]}, {"model": "evil"}]
)
@pytest.mark.parametrize("path", [b"/api/v1/models/acme/chat/inference", b"/api/v1/generate"])
def test_parameters_choose_no_model_and_no_prompt(served, front, error_of, path, extra):
    inner = {name: value for name, value in extra.items() if path.endswith(b"inference") or name != "model"}
    body = {"input": "x", "parameters": inner} if path.endswith(b"inference") else {"prompt": "x", **inner}
    served.call(path, body, front=front)

    if inner:
        assert error_of(front)["param"] == next(iter(extra))
        assert served.link.sent == []


def test_callers_key_is_not_sent_to_the_backend(served, front):
    served.call(front=front)

    assert b"sk-lp-known" not in b"".join(served.link.sent[0])


# -- a unary answer


def test_answer_has_the_headers_clients_rely_on(served, front, answer):
    answer(served.call(front=front, headers=[(b"origin", b"https://app.example")]), GOOD)

    head = front.head
    assert head["content-type"] == "application/json"
    assert head["cache-control"] == "no-store"
    assert head["content-length"] == str(len(front.body))
    assert head["access-control-allow-origin"] == "*"
    assert head["openai-processing-ms"].isdigit()
    assert head["date"].endswith("GMT")
    assert "connection" not in head


def test_caller_who_wants_to_close_is_closed(served, answer):
    front = FakeFront(keep_alive=False)

    answer(served.call(front=front), GOOD)

    assert (front.head["connection"], front.ended) == ("close", ["close"])


def test_caller_reads_the_name_they_asked_for(stage, front, answer):
    stage.serve(model("ours", upstream_name="theirs", aliases=("gpt-4o",)))
    body = {"model": "gpt-4o", "messages": [{}]}

    answer(stage.call(body=body, front=front), {**GOOD, "model": "theirs"})

    assert json.loads(front.body)["model"] == "gpt-4o"
    assert stage.journal.record.model == "ours"


def test_parameters_that_were_dropped_are_told(served, front, answer):
    answer(served.call(front=front), GOOD, headers={b"x-lingpai-dropped-params": b"top_k"})

    assert front.head["x-lingpai-dropped-params"] == "top_k"


def test_answer_may_come_in_many_pieces(served, front):
    call = served.call(front=front)
    call.response_started(200, {})
    for byte in json.dumps(GOOD).encode():
        call.response_data(bytes([byte]))
    call.response_finished()

    assert json.loads(front.body) == GOOD


def test_owasp_api10_an_answer_that_is_too_long_is_given_up(make_stage, front, error_of):
    stage = make_stage(max_answer_bytes=1000)
    stage.serve(model())
    call = stage.call(front=front)
    call.response_started(200, {})

    for _ in range(11):
        call.response_data(b"x" * 100)

    assert stage.link.upstream.told == ["abort"]
    assert error_of(front)["code"] == "backend_error"
    assert stage.limiter.held == 0


def test_long_request_does_not_count_as_answer(make_stage, front, answer):
    stage = make_stage(max_answer_bytes=1000)
    stage.serve(model())
    call = stage.call(body={"model": "acme/chat", "messages": ["x" * 5000]}, front=front)

    answer(call, GOOD)

    assert front.head["status"] == "200 OK"


BAD_ANSWERS = [
    b"",
    b"[]",
    b"null",
    b'"text"',
    b"{",
    b"\xff",
    b'{"a": "\xff"}',
    b"[" * 100_000,
    b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", BAD_ANSWERS, ids=lambda body: repr(body[:20]))
@pytest.mark.parametrize("upstream_name", ["acme/chat", "theirs"])
def test_answer_that_is_no_answer_becomes_a_backend_error(
    stage, front, answer, error_of, *, body, upstream_name
):
    """Whatever the backend sends, somebody waits for an answer: nothing may be raised into the lane."""
    stage.serve(model(upstream_name=upstream_name))

    answer(stage.call(front=front), body)

    assert (error_of(front)["code"], stage.limiter.held) == ("backend_error", 0)


@pytest.mark.parametrize("vector", [[None], [1e39], ["x"], [[1]], "???"], ids=str)
@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_vector_that_is_none_never_leaves_the_caller_waiting(stage, front, answer, vector, encoding):
    """The stock SDK asks for base64, and engines do answer null for NaN."""
    stage.serve(model("e", "embedding"))
    request = {"model": "e", "input": "a", "encoding_format": encoding}

    answer(stage.call(b"/v1/embeddings", request, front=front), {"data": [{"embedding": vector}]})

    assert front.ended == ["keep"]
    assert front.head["status"] in ("200 OK", "502 Bad Gateway")


@pytest.mark.parametrize(
    ("path", "task"),
    [
        (b"/predict", "chat"),
        (b"/predict", "embedding"),
        (b"/api/v1/generate", "chat"),
        (b"/api/v1/models/m/inference", "chat"),
        (b"/api/v1/models/m/inference", "embedding"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None, "data": None},
        {"choices": ["x"], "data": ["x"]},
        {"choices": [{"message": "x"}], "data": [None]},
        {"choices": 5, "data": 5},
        {"choices": None, "data": [{"embedding": [1]}, 5]},
    ],
    ids=str,
)
def test_answer_of_another_shape_becomes_a_backend_error(stage, front, answer, error_of, *, path, task, body):
    stage.serve(model("m", task))
    request = {"model": "m", "input_data": "a", "prompt": "a", "input": "a"}

    answer(stage.call(path, request, front=front), body)

    assert error_of(front)["code"] == "backend_error"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("body", BAD_ANSWERS, ids=lambda body: repr(body[:20]))
def test_error_answer_of_any_kind_becomes_an_error_of_ours(served, front, answer, error_of, *, status, body):
    answer(served.call(front=front), body, status=status)

    assert error_of(front).keys() == {"message", "type", "param", "code"}


def test_worker_speaks_our_errors_and_they_pass_as_they_are(stage, front, answer):
    stage.serve(model(backend=FakeBackend(kind="worker")))
    body = {"error": {"message": "boom", "type": "server_error", "param": None, "code": "model_error"}}

    answer(stage.call(front=front), body, status=500)

    assert json.loads(front.body) == body
    assert (stage.limiter.held, stage.journal.record.end_reason) == (0, "upstream_error")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (b"/v1/chat/completions", {"model": "acme/chat", "messages": [{}]}),
        (b"/predict", {"input_data": "a"}),
        (b"/api/v1/generate", {"prompt": "a"}),
        (b"/api/v1/models/acme/chat/inference", {"input": "a"}),
    ],
)
def test_stream_that_was_not_asked_for_becomes_a_backend_error(served, front, error_of, path, fields):
    call = served.call(path, fields, front=front)

    call.response_started(200, STREAM_HEAD)

    assert error_of(front)["code"] == "backend_error"
    assert (served.link.upstream.told, served.limiter.held) == (["abort"], 0)


# -- streams


def test_stream_has_the_head_clients_rely_on(served, front):
    stream(served, front)

    head = front.head
    assert head["status"] == "200 OK"
    assert head["content-type"] == "text/event-stream"
    assert (head["cache-control"], head["x-accel-buffering"]) == ("no-cache", "no")
    assert head["transfer-encoding"] == "chunked"
    assert head["x-ratelimit-limit-requests"] == "5"
    assert head["x-request-id"] == head["request-id"]


def test_stream_for_http_1_0_is_not_chunked_and_ends_with_the_connection(served):
    front = FakeFront(version="1.0")

    call = stream(served, front)
    call.response_finished()

    assert front.body == chunk() + b"data: [DONE]\n\n"
    assert "transfer-encoding" not in front.head
    assert front.ended == ["close"]


def test_usage_is_asked_for_recorded_and_taken_out(served, front):
    call = stream(served, front)

    call.response_data(usage_chunk() + b"data: [DONE]\n\n")
    call.response_finished()

    assert served.sent[1]["stream_options"] == {"include_usage": True}
    assert front.chunks == chunk() + b"data: [DONE]\n\n"
    assert served.journal.record.completion_tokens == 4


def test_usage_that_was_asked_for_reaches_the_caller(served, front):
    body = {**STREAM, "stream_options": {"include_usage": True, "other": 1}}
    call = served.call(body=body, front=front)
    call.response_started(200, STREAM_HEAD)

    call.response_data(chunk() + usage_chunk())
    call.response_finished()

    assert served.sent[1]["stream_options"] == {"include_usage": True, "other": 1}
    assert front.chunks == chunk() + usage_chunk() + b"data: [DONE]\n\n"


def test_events_are_handed_on_whole(served, front):
    call = served.call(body=STREAM, front=front)
    call.response_started(200, STREAM_HEAD)
    head = front.sent

    for byte in chunk()[:-1]:
        call.response_data(bytes([byte]))
    assert front.sent == head
    call.response_data(b"\n")

    assert front.sent == head + b"%x\r\n%b\r\n" % (len(chunk()), chunk())


def test_stream_speaks_the_name_the_caller_asked_for(stage, front):
    stage.serve(model("ours", upstream_name="theirs"))
    call = stage.call(body={**STREAM, "model": "ours"}, front=front)
    call.response_started(200, STREAM_HEAD)

    call.response_data(chunk('say "model":"theirs"', model="theirs"))
    call.response_finished()

    (event, _, _) = front.chunks.split(b"\n\n")
    parsed = json.loads(event.removeprefix(b"data: "))
    assert parsed["model"] == "ours"
    assert parsed["choices"][0]["delta"]["content"] == 'say "model":"theirs"'


@pytest.mark.parametrize("failure", [Failure.IDLE, Failure.CLOSED, Failure.GARBAGE])
def test_stream_that_fails_ends_with_an_error_and_without_done(served, front, failure):
    call = stream(served, front)
    call.response_data(usage_chunk())

    call.response_failed(failure, "detail")

    first, last, rest = front.chunks.split(b"\n\n")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (first + b"\n\n", rest) == (chunk(), b"")
    assert error["code"] in ("backend_timeout", "backend_error")
    assert "detail" not in error["message"]
    record = served.journal.record
    assert (record.charged, record.completion_tokens, record.status) == (1, 4, 200)
    assert record.end_reason == ("timeout" if failure is Failure.IDLE else "upstream_error")


def test_error_in_the_middle_of_a_stream_is_passed_on_without_done(served, front):
    call = stream(served, front)

    call.response_data(b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n')
    call.response_finished()

    assert front.chunks == chunk() + b'data: {"error": {"message": "out of memory"}}\n\n'
    assert served.journal.record.end_reason == "upstream_error"


def test_stream_that_ends_without_done_gets_one(served, front):
    call = stream(served, front)

    call.response_data(b'data: {"choices":[{"delta":{}}]}')
    call.response_finished()

    assert front.chunks == chunk() + b'data: {"choices":[{"delta":{}}]}\n\ndata: [DONE]\n\n'


def test_stream_that_only_a_close_ends_is_complete_only_with_done(served, front):
    """A broken connection looks the same."""
    call = served.call(body=STREAM, front=front)
    call.response_started(200, {b"content-type": b"text/event-stream"})
    call.response_data(chunk())
    call.response_finished()

    assert b"[DONE]" not in front.sent
    assert served.journal.record.end_reason == "upstream_error"


def test_event_without_an_end_ends_the_stream(served, front, monkeypatch):
    monkeypatch.setattr("lingpai.wire.sse.MAX_EVENT_BYTES", 100)
    call = stream(served, front)

    call.response_data(b"x" * 200)

    assert served.link.upstream.told == ["abort"]
    assert served.journal.record.end_reason == "upstream_error"
    assert b"[DONE]" not in front.chunks


def test_caller_who_leaves_a_stream_is_charged_for_what_was_used_until_then(served, front):
    call = stream(served, front)
    call.response_data(chunk("b", usage={"prompt_tokens": 3, "completion_tokens": 2}))

    front.call = None
    call.caller_left()

    record = served.journal.record
    assert (record.end_reason, record.charged, record.completion_tokens) == ("client_gone", 1, 2)
    assert served.link.upstream.told == ["abort"]


def test_slow_caller_pauses_and_resumes_the_backend(served, front):
    call = stream(served, front)

    call.pause()
    call.resume()

    assert served.link.upstream.told == ["pause", "resume"]


# -- a silent backend


@pytest.mark.parametrize(("version", "sent"), [("1.1", b"8\r\n: ping\n\n\r\n"), ("1.0", b": ping\n\n")])
def test_quiet_stream_shows_a_sign_of_life(served, version, sent):
    front = FakeFront(version=version)
    call = stream(served, front)
    before = front.sent

    call.response_quiet()

    assert front.sent == before + sent


def test_sign_of_life_never_falls_into_an_event(served, front):
    call = stream(served, front)
    call.response_data(b'data: {"cho')
    before = front.sent

    call.response_quiet()

    assert front.sent == before


def test_unary_answer_and_one_that_is_over_get_no_sign_of_life(served):
    unary, over = FakeFront(), FakeFront()
    call = served.call(front=unary)
    call.response_started(200, {b"content-type": b"application/json"})
    call.response_quiet()
    ended = stream(served, over)
    ended.response_finished()
    before = over.sent

    ended.response_quiet()

    assert (unary.sent, over.sent) == (b"", before)


@pytest.mark.parametrize(("kind", "may_retry"), [("openai", True), ("worker", False)])
def test_worker_is_never_asked_twice(stage, kind, may_retry):
    assert stage.gateway.link(FakeBackend(kind=kind)).pool.may_retry is may_retry


def test_worker_is_told_the_settings_it_goes_by_and_a_provider_is_not(make_stage):
    gateway = make_stage(max_inputs=7, fetch_media=False).gateway

    local, provider = (gateway.link(FakeBackend(name=kind, kind=kind)).head for kind in ("worker", "openai"))

    assert b"x-lingpai-max-inputs: 7\r\n" in local
    assert b"x-lingpai-fetch-media: off\r\n" in local
    assert b"x-lingpai-" not in provider
