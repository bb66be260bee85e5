"""Step 6: the record first, then the last bytes, whatever way a call ends."""

import json
import time
from email.utils import parsedate_to_datetime

import pytest
from gateway_fakes import GOOD, STREAM, STREAM_HEAD, FakeFront, FakeLink, chunk, model, principal, stream
from gateway_limits import chat, limit

from lingpai.lane.upstream import Failure

# -- the record


def test_record_of_a_complete_call(served, front, answer):
    served.keys.known[b"sk-lp-known"].key_id = "k1"

    answer(served.call(front=front), GOOD)

    record = served.journal.record
    assert record.request_id == front.head["x-request-id"] == front.head["request-id"]
    assert (record.key_id, record.user_id, record.client_address) == ("k1", "usr_1", "192.0.2.7")
    assert (record.model, record.backend, record.task) == ("acme/chat", "gpu-1", "chat")
    assert (record.endpoint, record.status, record.end_reason) == ("chat.completions", 200, "complete")
    assert (record.prompt_tokens, record.completion_tokens, record.counted) == (3, 4, "reported")
    assert 0 <= record.first_byte_ms <= record.duration_ms


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 1, "estimated": True}, "estimated"),
        (None, "estimated"),
        ({"prompt_tokens": "x"}, "estimated"),
        ({"prompt_tokens": -5, "completion_tokens": 3}, "estimated"),
        ({"prompt_tokens": 10**10}, "estimated"),
        ({"prompt_tokens": 0, "completion_tokens": 0}, "estimated"),
        ({"prompt_tokens": 0, "completion_tokens": 1}, "reported"),
    ],
)
def test_record_says_how_tokens_were_counted(served, front, answer, usage, counted):
    answer(served.call(front=front), {"choices": [], "usage": usage})

    assert served.journal.record.counted == counted


def test_name_made_up_by_a_caller_does_not_get_into_record_or_metrics(served, front):
    served.call(body={"model": "made-up", "messages": [{}]}, front=front)

    assert served.journal.record.model == ""
    assert "made-up" not in str(list(served.gateway.metrics._figures))


def test_call_of_an_unknown_caller_is_counted_but_not_recorded(served, front):
    served.keys.garbage.add(b"sk-lp-bad")

    served.call(front=front, key=b"sk-lp-bad")

    assert served.journal.records == []
    assert ("chat.completions", "", 401) in served.gateway.metrics._figures


def test_local_caller_without_a_key_is_recorded_without_one(stage, answer):
    stage.allow_local(principal(role="admin", key_id=None, user_id="usr_admin"))
    stage.serve(model())
    front = FakeFront(is_local=True, caller_address="")

    answer(stage.call(front=front, key=None), GOOD)

    assert (stage.journal.record.key_id, stage.journal.record.user_id) == (None, "usr_admin")


# -- first the record, then the answer


def test_unary_answer_waits_for_its_record(served, front, answer):
    served.journal.waits = True

    answer(served.call(front=front), GOOD)
    assert (front.sent, front.ended) == (b"", [])
    served.journal.waiting[0](True)

    assert json.loads(front.body) == GOOD
    assert front.ended == ["keep"]


def test_end_of_a_stream_waits_for_its_record(served, front):
    served.journal.waits = True
    call = stream(served, front)

    call.response_data(b"data: [DONE]\n\n")
    call.response_finished()
    before = front.sent
    served.journal.waiting[0](True)

    assert b"[DONE]" not in before
    assert front.chunks == chunk() + b"data: [DONE]\n\n"


def test_answer_that_cannot_be_recorded_is_withheld_and_given_back(served, front, answer, error_of):
    served.journal.can_write = False

    answer(served.call(front=front), GOOD)

    assert (front.head["status"], error_of(front)["code"]) == (
        "503 Service Unavailable",
        "storage_unavailable",
    )
    assert b"prompt_tokens" not in front.sent
    assert served.limiter.held == 0


@pytest.mark.parametrize("end", ["complete", "stream", "failed", "left", "refused"])
def test_record_that_the_journal_cannot_take_hangs_nobody_and_holds_nothing(limited, answer, end, caplog):
    """However the call ends: its caller gets an answer, and its reservation goes back."""
    meters = limit(limited, "5/day", "90000 tokens/day", "2 concurrent")
    limited.journal.append = None  # which cannot be called
    call, front = chat(limited, stream=end == "stream", **({"n": -1} if end == "refused" else {}))

    if end == "complete":
        answer(call, GOOD)
    elif end == "stream":
        call.response_started(200, STREAM_HEAD)
        call.response_data(chunk() + b"data: [DONE]\n\n")
        call.response_finished()
    elif end == "failed":
        call.response_failed(Failure.CLOSED, "")
    elif end == "left":
        front.call = None
        call.caller_left()

    assert front.call is None
    assert bool(front.sent) is (end != "left")
    assert b"[DONE]" not in front.sent
    assert [(meter.used, meter.reserved) for meter in meters] == [(0, 0)] * 3
    assert "cannot be recorded" in caplog.text


def test_answer_whose_record_may_not_be_safe_is_withheld_and_charged(limited, answer, error_of):
    """The record is in the journal and will be loaded, with its charge."""
    meters = limit(limited, "5/day", "90000 tokens/day", "2 concurrent")
    limited.journal.waits = True
    call, front = chat(limited)
    answer(call, GOOD)

    limited.journal.waiting.pop()(None)

    assert (front.head["status"], error_of(front)["code"]) == (
        "503 Service Unavailable",
        "storage_unavailable",
    )
    assert [(meter.used, meter.reserved) for meter in meters] == [(1, 0), (7, 0), (0, 0)]


def test_stream_that_cannot_be_recorded_breaks_off(served, front):
    """Neither [DONE] nor the last chunk: the caller must see that the answer is not complete."""
    served.journal.can_write = False
    call = stream(served, front)

    call.response_data(b"data: [DONE]\n\n")
    call.response_finished()

    assert not front.sent.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in front.sent
    assert front.ended == ["close"]


def test_caller_who_left_while_the_record_was_written_is_sent_nothing(served, front, answer):
    served.journal.waits = True
    call = served.call(front=front)
    answer(call, GOOD)

    front.call = None
    call.caller_left()
    served.journal.waiting[0](True)

    assert (front.sent, front.ended) == (b"", [])
    assert len(served.journal.records) == 1


# -- refusals and the end of the server


def test_body_that_is_too_large_is_refused_before_it_is_read(make_stage, front, error_of):
    stage = make_stage(max_body_bytes=100_000)

    stage.open(front=front, headers=[(b"content-length", b"100001")])

    assert (error_of(front)["code"], front.head["connection"]) == ("request_too_large", "close")
    assert front.ended == ["linger"]


def test_body_that_grows_too_large_is_refused_once(make_stage, front, error_of):
    stage = make_stage(max_body_bytes=100)
    stage.serve(model())
    call = stage.open(front=front)

    for _ in range(5):
        call.body_part(b"x" * 40)
    call.body_complete()

    assert error_of(front)["code"] == "request_too_large"
    assert front.ended == ["linger"]
    assert (stage.journal.record.end_reason, stage.journal.record.status) == ("refused", 413)


def test_body_of_exactly_the_limit_is_read(make_stage, front):
    body = json.dumps({"model": "acme/chat", "messages": [{}]}).encode()
    stage = make_stage(max_body_bytes=len(body))
    stage.serve(model())

    stage.call(body=body, front=front)

    assert stage.sent[0] == b"/chat/completions"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"content-type", b"text/plain")], "unsupported_media_type"),
        ([(b"content-type", b"multipart/form-data; boundary=x")], "unsupported_media_type"),
        ([(b"content-encoding", b"gzip")], "unsupported_media_type"),
        ([(b"content-type", b"application/json; charset=utf-8")], None),
        ([(b"content-type", b"application/JSON")], None),
        ([], None),
    ],
)
def test_body_must_be_plain_json(served, front, error_of, headers, code):
    served.call(front=front, headers=headers)

    assert (error_of(front)["code"] if front.sent else None) == code


def test_stop_ends_a_stream_with_an_error(served, front):
    call = stream(served, front)

    call.stop()

    error = json.loads(front.chunks.split(b"\n\n")[1].removeprefix(b"data: "))["error"]
    assert error["code"] == "shutting_down"
    assert (served.journal.record.end_reason, front.ended) == ("stopped", ["close"])
    assert served.link.upstream.told == ["abort"]


def test_stop_answers_a_caller_who_waits(served, front, error_of):
    served.call(front=front).stop()

    assert (error_of(front)["code"], front.head["retry-after"]) == ("shutting_down", "1")
    assert (served.limiter.held, served.journal.record.end_reason) == (0, "stopped")


@pytest.mark.parametrize("key", [None, b"sk-lp-known", b"sk-lp-being-looked-up"])
def test_stop_answers_a_caller_whose_body_is_still_coming(served, front, error_of, key, monkeypatch):
    """Also when it is not known yet, or never will be, who calls."""
    monkeypatch.setattr(served.gateway.authenticator, "load", lambda token, then: None)
    call = served.open(front=front, key=key)
    call.body_part(b"{")

    call.stop()

    assert (error_of(front)["code"], front.ended) == ("shutting_down", ["close"])


def test_stop_after_the_end_does_nothing(served, front, answer):
    call = served.call(front=front)
    answer(call, GOOD)
    sent = front.sent

    call.stop()
    call.response_failed(Failure.CLOSED, "")
    call.response_finished()

    assert (front.sent, len(served.journal.records)) == (sent, 1)


def test_fault_of_ours_is_answered_logged_and_given_back(served, front, error_of, caplog, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(FakeLink, "send", fail)

    call = served.call(front=front)

    assert (error_of(front)["code"], front.head["status"]) == ("internal_error", "500 Internal Server Error")
    assert "secret detail" not in front.sent.decode()
    assert "secret detail" in caplog.text
    assert call.request_id.decode() in caplog.text
    assert served.limiter.held == 0


def test_headers_are_about_the_present_however_long_the_call_took(stage, served, answer):
    """Told of its beginning, a smooth rate would have to go back to it."""
    asked = []
    served.gateway.rate_limit_headers = lambda meters, now: asked.append(now) or b""
    front = FakeFront()
    unary = served.call(front=front)
    unary.started_at -= 3600
    answer(unary, GOOD)
    streamed = served.call(body=STREAM)
    streamed.started_at -= 3600
    streamed.response_started(200, STREAM_HEAD)

    assert all(abs(now - time.time()) < 60 for now in asked)
    assert len(asked) == 2
    assert abs(parsedate_to_datetime(front.head["date"]).timestamp() - time.time()) < 60
