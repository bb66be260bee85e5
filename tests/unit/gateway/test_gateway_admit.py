"""Step 4, and what is given back: who is charged, and who is not."""

import pytest
from gateway_fakes import GOOD, model, principal

from lingpai.lane.upstream import Failure


class Refusal:
    code = "insufficient_quota"
    message = "2000/day is spent."
    wait_s = 0

    def headers(self, now):
        return b"retry-after: 60\r\nx-should-retry: false\r\n"


def test_good_call_is_charged_once(served, front, answer):
    answer(served.call(front=front), GOOD)

    assert (served.limiter.held, served.journal.record.charged) == (1, 1)
    assert front.head["status"] == "200 OK"


def test_record_carries_the_very_time_the_limits_were_asked_at(served, front, answer):
    answer(served.call(front=front), GOOD)

    ((meters, asked_at),) = served.limiter.taken
    assert meters == (served.meter,)
    assert served.journal.record.started_at == asked_at


def test_limits_are_shown_with_the_answer(served, front, answer):
    answer(served.call(front=front), GOOD)

    assert front.head["x-ratelimit-limit-requests"] == "5"


def test_key_without_limits_asks_none(stage, front, answer):
    stage.allow(principal(), meters=())
    stage.serve(model())

    answer(stage.call(front=front), GOOD)

    assert stage.limiter.taken == []
    assert "x-ratelimit-limit-requests" not in front.head


def test_refused_call_is_recorded_not_charged_and_not_sent(served, front, error_of):
    served.limiter.refusal = Refusal()

    served.call(front=front)

    record = served.journal.record
    assert (front.head["status"], front.head["retry-after"]) == ("429 Too Many Requests", "60")
    assert (error_of(front)["code"], error_of(front)["message"]) == (
        "insufficient_quota",
        "2000/day is spent.",
    )
    assert (record.end_reason, record.status, record.charged) == ("refused", 429, 0)
    assert (served.link.sent, served.limiter.given_back) == ([], [])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        {"model": "acme/chat"},
        {"model": "unknown", "messages": [1]},
        {"model": 5},
    ],
)
def test_call_that_cannot_be_served_asks_no_limit(served, front, body):
    served.call(body=body, front=front)

    assert served.limiter.taken == []
    assert served.journal.record.charged == 0


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_error_that_the_caller_could_have_avoided_is_charged(served, front, answer, status):
    answer(served.call(front=front), {"error": {"message": "bad"}}, status=status)

    assert (served.limiter.held, served.journal.record.charged) == (1, 1)
    assert served.journal.record.end_reason == "complete"


@pytest.mark.parametrize("status", [301, 401, 403, 408, 429, 500, 502, 503, 504])
def test_error_of_the_backend_is_not_charged(served, front, answer, status):
    answer(served.call(front=front), b"sorry", status=status)

    assert (served.limiter.held, served.journal.record.charged) == (0, 0)


@pytest.mark.parametrize("failure", Failure)
def test_backend_that_does_not_answer_is_not_charged(served, front, error_of, failure):
    served.call(front=front).response_failed(failure, "detail")

    record = served.journal.record
    assert (served.limiter.held, record.charged) == (0, 0)
    assert (record.end_reason == "timeout") == (failure in (Failure.TIMEOUT, Failure.IDLE))
    assert error_of(front)["code"].startswith("backend_")
    assert "detail" not in error_of(front)["message"]


def test_what_is_given_back_is_what_was_taken(served, front):
    served.call(front=front).response_failed(Failure.CLOSED, "")

    assert served.limiter.given_back == served.limiter.taken


def test_garbage_from_the_backend_is_not_charged(served, front, answer, error_of):
    answer(served.call(front=front), b"<html>")

    assert served.limiter.held == 0
    assert error_of(front)["code"] == "backend_error"


def test_caller_who_leaves_while_the_backend_works_is_charged(served, front):
    call = served.call(front=front)

    front.call = None
    call.caller_left()

    record = served.journal.record
    assert (served.limiter.held, record.charged, record.end_reason) == (1, 1, "client_gone")
    assert served.link.upstream.told == ["abort"]


def test_caller_who_leaves_before_the_body_is_complete_is_neither_charged_nor_recorded(served, front):
    call = served.open(front=front)
    call.body_part(b'{"model"')

    front.call = None
    call.caller_left()

    assert (served.limiter.taken, served.journal.records) == ([], [])


def test_nothing_is_given_back_twice(served, front):
    """The backend fails, and before the record is written the caller leaves."""
    served.journal.waits = True
    call = served.call(front=front)

    call.response_failed(Failure.CLOSED, "")
    front.call = None
    call.caller_left()
    served.journal.waiting[0](False)

    assert (len(served.limiter.given_back), len(served.journal.records)) == (1, 1)


def test_call_is_refused_while_usage_cannot_be_recorded(served, front, error_of):
    served.journal.healthy = False

    served.call(front=front)

    assert (error_of(front)["code"], front.head["status"]) == (
        "storage_unavailable",
        "503 Service Unavailable",
    )
    assert (served.limiter.taken, served.link.sent) == ([], [])
