"""How many tokens a call used: reported, counted or estimated; what early leavers pay; what backends may not claim."""

import asyncio
import json

import pytest
from gateway_fakes import GOOD, STREAM, STREAM_HEAD, FakeBackend, FakeFront, chunk, model, usage_chunk
from gateway_limits import PRICE, chat, limit, turn, wait

from lingpai.gateway import farewell
from lingpai.gateway import stream as stream_module
from lingpai.lane.upstream import Failure

TEXT = {"choices": [{"message": {"content": "one two three"}}]}


def streamed(stage, *pieces, front=None):
    """A streamed call and the pieces of its answer until now."""
    call = stage.call(
        body={**STREAM, "messages": [{"role": "user", "content": "hello you"}]}, front=front or FakeFront()
    )
    call.response_started(200, STREAM_HEAD)
    for piece in pieces:
        call.response_data(piece)
    return call


def counts(stage):
    record = stage.journal.record
    return record.prompt_tokens, record.completion_tokens, record.counted


# -- where the counts come from


def test_answer_without_usage_is_estimated(served, answer):
    call, _ = chat(served, text="hello you")

    answer(call, TEXT)

    assert counts(served) == (5, 3, "estimated")


def test_stream_without_usage_is_estimated_by_its_events(served):
    call = streamed(served, *[chunk("word ")] * 7)

    call.response_data(b"data: [DONE]\n\n")
    call.response_finished()

    assert counts(served) == (5, 7, "estimated")


def test_stream_of_large_pieces_is_estimated_by_its_bytes(served):
    call = streamed(served, *[chunk("x" * 400)] * 5)

    call.response_finished()

    assert counts(served) == (5, 500, "estimated")


def test_events_that_come_together_are_counted_one_by_one(served):
    call = streamed(served, chunk("a"), chunk("b") + chunk("c") + chunk("d"))

    call.response_finished()

    assert counts(served)[1] == 4


WORDS = " ".join(["word"] * 2000)  # 2,000 tokens by the estimate
TOOL_CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": WORDS}}


def event(delta) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [event({"content": "word "}) * 2000 + b"data: [DONE]\n\n"],
        [event({"content": WORDS}) + b"data: [DONE]\n\n"],
        [event({"content": '"' + WORDS})],  # with a quote in it, it teaches nothing about events
        [event({"tool_calls": [TOOL_CALL]})],
        [event({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}) * 100] * 20,
        [event({"content": WORDS})[:-2]],  # never ended by a blank line
    ],
    ids=["one read", "with the end", "quoted", "a tool call", "many pieces of a tool call", "cut off"],
)
@pytest.mark.parametrize("leaves", [True, False])
def test_stream_without_usage_is_estimated_by_what_it_says_however_it_is_sent(served, front, pieces, leaves):
    call = served.call(body=STREAM, front=front)
    call.response_started(200, STREAM_HEAD)
    for piece in pieces:
        call.response_data(piece)
    is_cut_off = not pieces[-1].endswith(b"\n\n")

    if leaves:
        call.caller_left()
    else:
        call.response_finished()

    # Of an event that has not ended, a caller who has left got nothing.
    most = 0 if leaves and is_cut_off else 2100
    assert most * 0.95 <= served.journal.record.completion_tokens <= most


def test_answer_without_usage_is_counted_by_the_models_own_tokenizer(served, answer):
    served.serve_only(model(tokenizer="a tokenizer"))
    call, front = chat(served, text="hello you")

    answer(call, TEXT)
    assert front.sent == b""
    turn(served)

    assert counts(served) == (9 + 3, 13, "counted")
    assert json.loads(front.body) == TEXT


def test_stream_without_usage_is_counted_by_the_models_own_tokenizer(served):
    served.serve_only(model(tokenizer="a tokenizer"))
    call = streamed(served, chunk("one "), chunk("two\\n"))

    call.response_finished()
    turn(served)

    assert counts(served)[1:] == (9, "counted")


def test_stream_that_is_too_long_to_be_kept_is_estimated(served, monkeypatch):
    monkeypatch.setattr(stream_module, "MAX_KEPT_BYTES", 100)
    served.serve_only(model(tokenizer="a tokenizer"))
    call = streamed(served, *(chunk("word ") for _ in range(20)))

    call.response_finished()
    turn(served)

    assert counts(served)[1:] == (20, "estimated")


def test_tokenizer_that_fails_leaves_an_estimate(served, answer):
    served.serve_only(model(tokenizer="a tokenizer"))
    served.counter.fails = True
    call, _ = chat(served, text="hello you")

    answer(call, TEXT)
    turn(served)

    assert counts(served) == (5, 3, "estimated")


def test_reported_usage_needs_no_tokenizer(served, answer):
    served.serve_only(model(tokenizer="a tokenizer"))
    call, front = chat(served)

    answer(call, GOOD)

    assert counts(served) == (3, 4, "reported")
    assert front.sent


def test_caller_who_leaves_while_tokens_are_counted_is_recorded_once(served, answer):
    served.serve_only(model(tokenizer="a tokenizer"))
    call, front = chat(served, text="hello you")

    answer(call, TEXT)
    front.call = None
    call.caller_left()
    turn(served)

    assert served.journal.record.end_reason == "complete"
    assert counts(served) == (9 + 3, 13, "counted")
    assert served.limiter.held == 1


def test_model_without_tokens_has_none(served, answer):
    served.serve_only(model("acme/f", "generic", backend=FakeBackend(kind="worker")))
    call = served.call(b"/predict", {"model": "acme/f", "input_data": "hello"})

    answer(call, {"prediction": "hello"})

    assert counts(served) == (0, 0, "none")


# -- what a backend may not claim


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": -5},
        {"prompt_tokens": 10**12, "completion_tokens": 1},
        {"prompt_tokens": "many", "completion_tokens": 1},
        {"prompt_tokens": [], "completion_tokens": None},
    ],
)
def test_usage_that_cannot_be_is_not_believed_and_said_once_a_minute(served, answer, caplog, usage):
    for _ in range(3):
        call, _ = chat(served, text="hello you")
        answer(call, {**TEXT, "usage": usage})

    assert {(r.prompt_tokens, r.completion_tokens, r.counted) for r in served.journal.records} == {
        (5, 3, "estimated")
    }
    assert [record.message.startswith("backend gpu-1 reports") for record in caplog.records] == [True]


def test_stream_that_claims_nonsense_is_estimated(served):
    call = streamed(served, chunk("a"), b'data: {"choices":[],"usage":{"prompt_tokens":-1}}\n\n')

    call.response_finished()

    assert counts(served) == (5, 1, "estimated")


def test_backend_that_uses_more_than_it_was_told_is_charged_to_the_limit_and_named(limited, answer, caplog):
    (meter,) = limit(limited, "1000 tokens/day")
    call, _ = chat(limited)

    answer(call, {**TEXT, "usage": {"prompt_tokens": 10, "completion_tokens": 5000}})

    record = limited.journal.record
    assert (record.completion_tokens, record.charged_tokens) == (5000, 1000)
    assert (meter.used, meter.reserved) == (1000, 0)
    assert "backend gpu-1 used more tokens than it was told to" in caplog.text
    assert "backend gpu-1 used more than the limits of a call had left" in caplog.text


# -- prices


def test_cost_follows_from_the_price(limited, answer):
    limited.serve_only(model(price=PRICE))
    call, _ = chat(limited)

    answer(call, GOOD)

    record = limited.journal.record
    assert (record.cost, record.currency, record.charged_cost) == (3 * 1000 + 4 * 2000, "USD", 11_000)
    assert record.charged_tokens == 7


def test_money_limit_keeps_what_a_call_cost(limited, answer):
    limited.serve_only(model(price=PRICE))
    (meter,) = limit(limited, "1 USD/day")
    call, _ = chat(limited)

    answer(call, GOOD)

    assert (meter.used, meter.reserved) == (11_000, 0)


def test_error_about_the_callers_input_costs_a_request_and_no_money(limited, answer):
    limited.serve_only(model(price=PRICE))
    (meter,) = limit(limited, "1 USD/day")
    call, _ = chat(limited)

    answer(call, {"error": {"message": "bad"}}, status=400)

    record = limited.journal.record
    assert (record.charged, record.cost, record.charged_cost) == (1, 0, 0)
    assert (meter.used, meter.reserved) == (0, 0)


# -- who leaves early, and backends that break off


def test_caller_who_leaves_a_stream_pays_for_the_prompt_and_what_was_handed_on(limited):
    (meter,) = limit(limited, "100000 tokens/day")
    front = FakeFront()
    call = streamed(limited, *[chunk("word ")] * 3, front=front)

    front.call = None
    call.caller_left()

    assert counts(limited) == (5, 3, "estimated")
    assert (limited.journal.record.end_reason, limited.journal.record.charged_tokens) == ("client_gone", 8)
    assert (meter.used, meter.reserved) == (8, 0)


def test_caller_who_leaves_a_stream_pays_what_the_backend_has_reported_until_then(limited):
    front = FakeFront()
    call = streamed(limited, chunk("word "), usage_chunk(), front=front)

    front.call = None
    call.caller_left()

    assert counts(limited) == (3, 4, "reported")


def test_caller_who_leaves_a_stream_is_counted_by_the_tokenizer_and_holds_until_then(limited):
    limited.serve_only(model(tokenizer="a tokenizer"))
    (meter,) = limit(limited, "100000 tokens/day")
    front = FakeFront()
    call = streamed(limited, chunk("word"), front=front)

    front.call = None
    call.caller_left()
    held = limited.gateway.held_for(("key", "k1"), [])
    turn(limited)

    assert [each[:2] for each in held] == [(call.started_at, call.reserved)]
    assert counts(limited) == (9 + 3, 4, "counted")
    assert (meter.used, meter.reserved) == (16, 0)
    assert limited.gateway.held_for(("key", "k1"), []) == []


def test_caller_who_leaves_before_an_answer_pays_for_the_prompt(limited):
    (meter,) = limit(limited, "100000 tokens/day")
    call, front = chat(limited, text="hello you")

    front.call = None
    call.caller_left()

    assert counts(limited) == (5, 0, "estimated")
    assert (meter.used, meter.reserved) == (5, 0)


def test_caller_who_leaves_before_there_is_a_connection_pays_nothing(limited):
    (meter,) = limit(limited, "100000 tokens/day")
    call, front = chat(limited)
    call.upstream = front.call = None  # the pool is opening a connection

    call.caller_left()

    record = limited.journal.record
    assert (record.end_reason, record.charged, record.charged_tokens, record.status) == (
        "client_gone",
        0,
        0,
        0,
    )
    assert (meter.used, meter.reserved) == (0, 0)


@pytest.mark.parametrize(
    ("status", "end_reason", "charged"),
    [(500, "upstream_error", 0), (504, "timeout", 0), (429, "complete", 0), (400, "complete", 1)],
)
def test_caller_who_leaves_in_the_middle_of_an_error_is_charged_as_for_that(
    limited, status, end_reason, charged
):
    (meter,) = limit(limited, "100000 tokens/day")
    call, front = chat(limited)
    call.response_started(status, {b"content-type": b"application/json", b"content-length": b"900"})

    front.call = None
    call.caller_left()

    record = limited.journal.record
    assert (record.end_reason, record.charged) == (end_reason, charged)
    assert record.status == {401: 502, 500: 502}.get(status, status)
    assert (record.charged_tokens, meter.used, meter.reserved) == (0, 0, 0)


@pytest.mark.parametrize("failure", [Failure.CLOSED, Failure.IDLE])
def test_stream_that_breaks_off_is_charged_until_there(limited, failure):
    (meter,) = limit(limited, "100000 tokens/day")
    call = streamed(limited, *[chunk("word ")] * 3)

    call.response_failed(failure, "detail")

    assert counts(limited) == (5, 3, "estimated")
    assert (meter.used, meter.reserved) == (8, 0)


def test_backend_that_does_not_answer_costs_nothing(limited):
    meters = limit(limited, "100000 tokens/day", "2 concurrent", "5/day")
    call, _ = chat(limited)

    call.response_failed(Failure.TIMEOUT, "detail")

    assert counts(limited) == (0, 0, "none")
    assert [(meter.used, meter.reserved) for meter in meters] == [(0, 0)] * 3


def test_stream_that_is_stopped_is_charged_until_there(limited):
    (meter,) = limit(limited, "100000 tokens/day")
    call = streamed(limited, *[chunk("word ")] * 3)

    call.stop()

    assert limited.journal.record.end_reason == "stopped"
    assert (meter.used, meter.reserved) == (8, 0)


@pytest.mark.parametrize("is_stream", [True, False])
def test_answer_that_cannot_be_recorded_is_not_charged(limited, answer, is_stream):
    (meter,) = limit(limited, "100000 tokens/day")
    limited.journal.can_write = False

    if is_stream:
        streamed(limited, chunk("word "), usage_chunk()).response_finished()
    else:
        answer(chat(limited)[0], GOOD)

    assert (meter.used, meter.reserved) == (0, 0)


def test_reservation_stays_until_the_record_is_written(limited, answer):
    (meter,) = limit(limited, "100000 tokens/day")
    limited.journal.waits = True
    call, _ = chat(limited)

    answer(call, GOOD)
    before = meter.reserved
    limited.journal.waiting.pop()(True)

    assert before == call.reserved.tokens
    assert (meter.used, meter.reserved) == (7, 0)


# -- who leaves between the last word and the usage


def finish():
    event = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def leave_at_the_end(stage):
    """A stream whose caller leaves when the model has finished; and the backend's connection."""
    front = FakeFront()
    call = streamed(stage, chunk("word "), finish(), front=front)
    upstream = call.upstream
    front.call = None
    call.caller_left()
    return call, upstream


def test_usage_is_waited_for_when_the_model_has_finished(limited):
    (meter,) = limit(limited, "100000 tokens/day")

    call, upstream = leave_at_the_end(limited)
    turn(limited)
    before = list(limited.journal.records), meter.reserved
    upstream.receiver.response_data(usage_chunk())
    turn(limited)

    assert before == ([], call.reserved.tokens)
    assert counts(limited) == (3, 4, "reported")
    assert limited.journal.record.end_reason == "client_gone"
    assert upstream.told[-1] == "abort"
    assert (meter.used, meter.reserved) == (7, 0)
    assert limited.gateway.counting == set()


@pytest.mark.parametrize("end", ["finished", "failed", "done", "too late", "server stops"])
def test_usage_that_does_not_come_is_estimated(limited, monkeypatch, end):
    monkeypatch.setattr(farewell, "PATIENCE_S", 0.01 if end == "too late" else 60)
    _, upstream = leave_at_the_end(limited)
    turn(limited)

    if end == "finished":
        upstream.receiver.response_finished()
    elif end == "failed":
        upstream.receiver.response_failed(Failure.CLOSED, "")
    elif end == "done":
        upstream.receiver.response_data(b"data: [DONE]\n\n")
    elif end == "server stops":
        for task in asyncio.all_tasks(limited.gateway.loop):
            task.cancel()
    wait(limited, 0.05)

    assert limited.journal.record.counted == "estimated"
    assert limited.journal.record.end_reason == "client_gone"


def test_backend_is_stopped_at_once_while_the_model_has_more_to_say(limited):
    front = FakeFront()
    call = streamed(limited, chunk("word "), front=front)
    upstream = call.upstream

    front.call = None
    call.caller_left()

    assert upstream.told == ["abort"]
    assert limited.journal.record.end_reason == "client_gone"
