"""Faults of ours, and answers of backends that could provoke some: whoever waits is answered, and nothing stays reserved."""

import asyncio
import json

import pytest
from gateway_fakes import GOOD, STREAM, STREAM_HEAD, FakeFront, chunk, model
from gateway_limits import chat, limit

from lingpai.gateway import relay, settle, tally
from lingpai.gateway.authenticate import Authenticator
from lingpai.gateway.endpoints import CHAT
from lingpai.jobs.runner import JobRunner
from lingpai.wire import tasks
from lingpai.wire.chunks import StreamReader


def fail(*_, **__):
    raise ZeroDivisionError("a fault of ours")


def tell(call, step, *told):
    """As the lane does: what is raised by what it tells comes back."""
    try:
        getattr(call, step)(*told)
    except ZeroDivisionError as error:
        call.response_broken(error)


def state(stage, front, call):
    """Answers, records, what is held beyond what was charged, and whether the call is over."""
    held = stage.limiter.held - sum(record.charged for record in stage.journal.records)
    return len(front.ended), len(stage.journal.records), held, call.is_over


ENDED = (1, 1, 0, True)
"""What must be so for every call that was admitted."""


# -- faults, step by step


@pytest.mark.parametrize(
    ("module", "step"),
    [(relay, "send"), (settle, "stream_head"), (StreamReader, "read"), (tally, "believe")],
    ids=["sending", "the head of a stream", "an event", "the usage"],
)
def test_fault_at_any_step_ends_the_call_and_is_logged(served, monkeypatch, caplog, module, step):
    front = FakeFront()
    monkeypatch.setattr(module, step, fail)

    call = served.call(body=STREAM, front=front)
    for told in (
        ("response_started", 200, STREAM_HEAD),
        ("response_data", chunk() + b"data: [DONE]\n\n"),
        ("response_finished",),
    ):
        if not call.is_over:
            tell(call, *told)

    assert state(served, front, call) == ENDED
    assert front.sent.startswith(b"HTTP/1.1 ")
    assert b"internal_error" in front.sent
    assert "ZeroDivisionError: a fault of ours" in caplog.text
    assert [record.request_id for record in caplog.records] == [call.request_id.decode()]


def test_fault_while_a_unary_answer_is_converted_is_an_error_with_the_calls_id(
    served, front, error_of, monkeypatch
):
    monkeypatch.setattr(type(CHAT), "convert", fail, raising=False)
    call = served.call(front=front)
    call.response_started(200, {b"content-type": b"application/json"})
    call.response_data(json.dumps(GOOD).encode())

    tell(call, "response_finished")

    assert error_of(front)["code"] == "internal_error"
    assert call.request_id.decode() in error_of(front)["message"]
    assert state(served, front, call) == ENDED


def test_fault_closes_the_connection_to_the_backend(served, front, monkeypatch):
    call = served.call(body=STREAM, front=front)
    call.response_started(200, STREAM_HEAD)
    monkeypatch.setattr(StreamReader, "read", fail)

    tell(call, "response_data", b"data: [DONE]\n\n")

    assert served.link.upstream.told == ["abort"]


def test_fault_when_the_caller_leaves_is_recorded_all_the_same(served, front, monkeypatch):
    call = served.call(front=front)
    monkeypatch.setattr(tally, "fill", fail)

    front.call = None  # as the lane does first
    call.caller_left()

    assert state(served, front, call) == (0, 1, 0, True)
    assert (served.journal.record.end_reason, served.journal.record.prompt_tokens > 0) == (
        "client_gone",
        True,
    )


@pytest.mark.parametrize("how", ["answered", "streamed", "left"])
def test_fault_while_the_record_is_made_leaves_nobody_waiting_and_nothing_reserved(
    limited, answer, monkeypatch, how
):
    """There is no record then, and so no charge, and no answer that would need one."""
    (meter,) = limit(limited, "100000 tokens/day")
    monkeypatch.setattr(settle, "charge", fail)
    call, front = chat(limited, **({"stream": True} if how == "streamed" else {}))

    if how == "answered":
        answer(call, GOOD)
    elif how == "streamed":
        call.response_started(200, STREAM_HEAD)
        tell(call, "response_data", chunk() + b"data: [DONE]\n\n")
        tell(call, "response_finished")
    else:
        front.call = None
        call.caller_left()

    assert (len(front.ended), call.is_over) == (0 if how == "left" else 1, True)
    assert (meter.used, meter.reserved, limited.journal.records) == (0, 0, [])


def test_fault_of_one_who_waits_for_a_key_does_not_keep_the_others_waiting(served, monkeypatch, caplog):
    told = []

    async def play():
        authenticator = Authenticator(served.keys, None, jobs=JobRunner())
        authenticator.load(b"sk-lp-unknown", fail)
        authenticator.load(b"sk-lp-unknown", lambda principal, error: told.append((principal, error)))
        while not told:
            await asyncio.sleep(0.005)
        authenticator.close()

    asyncio.run(asyncio.wait_for(play(), 5))

    assert told == [(None, None)]
    assert "a fault of ours" in caplog.text


# -- answers that are none

NESTED = '{"choices": [{"message": {"content": ' + "[" * 990 + "]" * 990 + "}}]}"
ODD = [
    {"data": ["x"]},
    {"data": [{"b64_json": ["q"]}]},
    {"data": [{"b64_json": 5, "url": []}]},
    {"data": [{"embedding": {"a": 1}}], "results": "x", "choices": [{"text": 5}]},
    {"results": [{"index": [], "relevance_score": "x"}]},
    {"choices": [{"message": {"content": {"a": []}}}], "usage": []},
    {"choices": {"0": 1}, "data": {"0": 1}, "results": {"0": 1}},
    {"text": {"a": 1}, "audio": [], "images": [5]},
    [[[]]],
    5,
    None,
    NESTED.encode(),
    b"\x00" * 100,
    b"[" * 5000,
]
PATHS = [
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/images/generations",
    "/v1/audio/speech", "/predict", "/api/v1/generate", "/api/v1/models/m/inference",
]  # fmt: skip
REQUEST = {
    "model": "m", "messages": [{"content": "a"}], "prompt": "a", "input": "a", "input_data": "a", "query": "a",
    "documents": ["a"], "voice": "a",
}  # fmt: skip


@pytest.mark.parametrize("task", [*sorted(tasks.ADDRESSES), tasks.GENERIC, "text-classification"])
@pytest.mark.parametrize("path", PATHS)
def test_no_answer_of_any_backend_leaves_the_caller_waiting(stage, answer, path, task, caplog):
    stage.serve(model("m", task))
    inner = {key: REQUEST[key] for key in ("input",)} if path.endswith("inference") else REQUEST

    for body in ODD:
        front, held = FakeFront(), stage.limiter.held
        call = stage.call(path.encode(), inner, front=front)
        if not call.is_over:
            answer(call, body if isinstance(body, bytes) else json.dumps(body).encode())
        assert (len(front.ended), call.is_over) == (1, True), body
        assert stage.limiter.held == held + stage.journal.records[-1].charged, body

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "event", [b'data: {"x":' + b"[" * 5000, b'data: {"choices":[{"delta":' + b"[" * 5000]
)
@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["cut off", "whole"])
def test_event_that_nests_deeply_is_passed_on_or_ends_the_stream(served, front, event, end):
    call = served.call(body=STREAM, front=front)
    call.response_started(200, STREAM_HEAD)

    call.response_data(event + end)
    call.response_finished()

    assert state(served, front, call) == ENDED
