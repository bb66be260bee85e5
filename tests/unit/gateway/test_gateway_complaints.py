"""What backends do wrong is in the log with the call's id, and no more often than once a minute."""

import logging

import pytest
from gateway_fakes import GOOD, stream
from gateway_limits import chat, limit

from lingpai.gateway.complaints import EVERY_S, Complaints
from lingpai.lane.upstream import Failure
from lingpai.telemetry import logs


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def complaints(clock):
    return Complaints(clock)


def test_repeats_are_counted_and_told_with_the_next(complaints, clock, caplog):
    for number in range(5):
        complaints.about("gpu-1", "answered with status 500", f"{number} bytes", b"req_%d" % number)
    clock.now += EVERY_S
    for number in (5, 6):
        complaints.about("gpu-1", "answered with status 500", f"{number} bytes", b"req_%d" % number)

    assert [(record.message, record.request_id) for record in caplog.records] == [
        ("backend gpu-1 answered with status 500 (0 bytes); said once a minute at most", "req_0"),
        (
            "backend gpu-1 answered with status 500 (5 bytes); said once a minute at most, 4 times left unsaid",
            "req_5",
        ),
    ]


def test_each_backend_and_each_kind_is_told_for_itself(complaints, caplog):
    for backend in ("gpu-1", "gpu-2"):
        for what in ("could not be reached", "did not answer in time"):
            complaints.about(backend, what, "detail", b"req_1")

    assert len(caplog.records) == 4


# -- of calls


def spoil_status(served, front, answer):
    call = served.call(front=front)
    answer(call, b"out of memory", status=500)
    return call


def spoil_answer(served, front, answer):
    call = served.call(front=front)
    answer(call, b"{")
    return call


def spoil_connection(served, front, answer):
    call = served.call(front=front)
    call.response_failed(Failure.CONNECT, "refused")
    return call


def spoil_stream(served, front, answer):
    call = stream(served, front)
    call.response_failed(Failure.IDLE, "time-out")
    return call


def spoil_usage(served, front, answer):
    call = served.call(front=front)
    answer(call, {**GOOD, "usage": {"prompt_tokens": -1}})
    return call


SPOILT = [spoil_status, spoil_answer, spoil_connection, spoil_stream, spoil_usage]


@pytest.mark.parametrize("spoil", SPOILT)
def test_line_about_a_call_carries_its_id(served, front, answer, caplog, spoil):
    call = spoil(served, front, answer)

    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert logs._request_id(record) == call.request_id.decode()
    assert record.message.startswith("backend gpu-1 ")


@pytest.mark.parametrize("spoil", SPOILT)
def test_failing_calls_do_not_fill_the_log(served, front, answer, caplog, spoil):
    """Whoever has a key could otherwise write a line with each of thousands of calls a second."""
    for _ in range(50):
        spoil(served, type(front)(), answer)

    assert len(caplog.records) == 1


def test_call_that_takes_more_than_the_limits_had_is_named(limited, answer, caplog):
    limit(limited, "1000 tokens/day")
    call, _ = chat(limited)

    answer(call, {**GOOD, "usage": {"prompt_tokens": 10, "completion_tokens": 5000}})

    assert {logs._request_id(record) for record in caplog.records} == {call.request_id.decode()}


@pytest.mark.parametrize("status", [302, 500, 503])
def test_what_a_failing_backend_says_is_not_logged_at_any_level(served, front, answer, caplog, status):
    """It may repeat the prompt, or the key that it was called with."""
    caplog.set_level(logging.DEBUG, "lingpai")

    answer(served.call(front=front), b"you said prompt-canary-77aa with sk-provider-canary", status=status)

    assert "canary" not in caplog.text
    assert f"status {status} (51 bytes)" in caplog.text
