"""Waiting instead of being refused: in turn, bounded, and never in vain."""

import re
import time

import pytest
from gateway_fakes import GOOD, FakeFront, model, principal
from gateway_limits import chat, limit, turn, turn_until, wait

from lingpai.gateway.authenticate import Account

ONE_AT_A_TIME = "1 concurrent wait 30s"


def keys(stage, *names, limits=(), shared=()):
    """Callers whose keys all have the `shared` meters."""
    for name in names:
        limiter, subject = stage.limiter, ("key", name)
        own = limiter.attach(subject, limits, limiter.read_history(subject, limits)) if limits else ()
        caller = principal(key_id=name)
        caller.account = Account(caller, (*shared, *own))
        stage.keys.known[name.encode()] = caller


def meters_of_user(stage, *limits):
    subject = ("user", "usr_1")
    return stage.limiter.attach(subject, limits, stage.limiter.read_history(subject, limits))


def prompts_sent(stage):
    """The texts of the calls that reached the backend, in order."""
    return [body.split(b'"content"')[1].split(b'"')[1].decode() for _, body in stage.link.sent]


def test_call_waits_until_another_one_ends(limited, answer):
    (meter,) = limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited, text="first")
    second, front = chat(limited, text="second")

    assert (prompts_sent(limited), front.sent, limited.gateway.queue.size) == (["first"], b"", 1)
    answer(first, GOOD)
    turn(limited)

    assert prompts_sent(limited) == ["first", "second"]
    assert limited.gateway.queue.size == 0
    answer(second, GOOD)
    assert front.head["status"] == "200 OK"
    assert (meter.used, meter.on_room) == (0, None)


def test_record_says_how_long_a_call_waited(limited, answer):
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    second, _ = chat(limited)

    wait(limited, 0.05)
    answer(first, GOOD)
    turn(limited)
    answer(second, GOOD)

    waited, not_waited = limited.journal.records[1], limited.journal.records[0]
    assert 45 < waited.queued_ms <= waited.duration_ms
    assert not_waited.queued_ms == 0


def test_limits_are_asked_at_the_time_the_call_enters(limited, answer):
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    second, _ = chat(limited)
    wait(limited, 0.03)

    before = time.time()
    answer(first, GOOD)
    turn(limited)
    answer(second, GOOD)

    assert limited.journal.records[1].started_at >= before


def test_keys_take_turns_and_within_a_key_the_first_comes_first(limited, answer):
    shared = meters_of_user(limited, ONE_AT_A_TIME)
    keys(limited, "a", "b", shared=shared)
    running, _ = chat(limited, key=b"a", text="running")
    calls = {}
    for text in ("a1", "a2", "a3", "b1", "b2"):
        calls[text], _ = chat(limited, key=text[:1].encode(), text=text)

    for _ in range(5):
        answer(running, GOOD)
        turn(limited)
        running = calls[prompts_sent(limited)[-1]]

    assert prompts_sent(limited)[1:] == ["a1", "b1", "a2", "b2", "a3"]


def test_newcomer_does_not_overtake(limited, answer):
    """Room that was given back belongs to those who wait, even before they had a chance to take it."""
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited, text="first")
    chat(limited, text="waiting")

    answer(first, GOOD)
    chat(limited, text="newcomer")
    turn(limited)

    assert prompts_sent(limited) == ["first", "waiting"]


def test_limit_that_refills_lets_in_by_itself(limited, clock):
    limit(limited, "20/1s wait 5s")
    for _ in range(21):
        chat(limited)

    assert len(limited.link.sent) == 20
    clock.now += 0.05
    turn_until(limited, lambda: limited.gateway.queue.size == 0)

    assert len(limited.link.sent) == 21


def test_reserved_tokens_that_come_back_let_in(limited, answer):
    (meter,) = limit(limited, "1000 tokens/day wait 30s")
    first, _ = chat(limited, text="first", max_tokens=900)
    second, _ = chat(limited, text="second", max_tokens=900)

    assert prompts_sent(limited) == ["first"]
    answer(first, GOOD)
    turn(limited)

    assert prompts_sent(limited) == ["first", "second"]
    answer(second, GOOD)
    assert (meter.used, meter.reserved) == (14, 0)


def test_call_whose_time_is_up_is_refused_as_usual(limited, error_of, monkeypatch):
    limit(limited, "1 concurrent wait 1s")
    chat(limited)
    _, front = chat(limited)

    wait(limited, 1.05)

    assert front.head["status"] == "429 Too Many Requests"
    assert error_of(front)["code"] == "rate_limit_exceeded"
    assert "retry-after" in front.head
    record = limited.journal.records[-1]
    assert (record.end_reason, record.charged) == ("refused", 0)
    assert record.queued_ms >= 990
    assert (limited.gateway.queue.size, limited.gateway.queue.lines) == (0, {})


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        (("1 concurrent",), 1),  # no wait
        (("1/10m wait 5s",), 1),  # room comes too late
        (("1/day wait 5s",), 1),
        (("1 concurrent wait 30s", "1/day"), 1),  # one of those that refuse has no queue
    ],
)
def test_call_that_cannot_wait_is_refused_at_once(limited, limits, calls):
    limit(limited, *limits)
    for _ in range(calls):
        chat(limited)

    _, front = chat(limited)

    assert front.head["status"] == "429 Too Many Requests"
    assert limited.gateway.queue.size == 0


def test_queue_is_bounded_for_all_and_for_each_key(make_stage, limited):
    limited.gateway.queue._most, limited.gateway.queue._most_per_key = 3, 2
    shared = meters_of_user(limited, ONE_AT_A_TIME)
    keys(limited, "a", "b", "c", shared=shared)

    chat(limited, key=b"a")
    fronts = [chat(limited, key=key)[1] for key in (b"a", b"a", b"a", b"b", b"c")]

    assert [front.head["status"][:3] if front.sent else "" for front in fronts] == ["", "", "429", "", "429"]


def test_call_that_finds_the_queue_full_is_told_so_and_to_come_back_later(limited, clock, error_of):
    limited.gateway.queue._most = 0
    limit(limited, "10/1s wait 5s")
    for _ in range(10):
        chat(limited)

    _, front = chat(limited)

    assert "as many calls as may are waiting already" in error_of(front)["message"]
    assert int(front.head["retry-after"]) >= 1


def test_call_that_has_waited_in_vain_is_told_how_long(limited, error_of):
    limit(limited, "1 concurrent wait 1s")
    chat(limited)
    _, front = chat(limited)

    wait(limited, 1.05)

    assert re.search(r"The call waited 1\.\d s for room\.", error_of(front)["message"])


def test_caller_who_leaves_the_queue_holds_nothing(limited, answer):
    (meter,) = limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited, text="first")
    second, front = chat(limited, text="second")
    chat(limited, text="third")

    front.call = None
    second.caller_left()
    answer(first, GOOD)
    turn(limited)

    assert prompts_sent(limited) == ["first", "third"]
    left = limited.journal.records[0]
    assert (left.end_reason, left.charged, left.status) == ("client_gone", 0, 0)
    assert meter.used == 1


def test_stop_answers_those_who_wait(limited, error_of):
    limit(limited, ONE_AT_A_TIME)
    chat(limited)
    call, front = chat(limited)

    call.stop()

    assert error_of(front)["code"] == "shutting_down"
    assert limited.gateway.queue.size == 0


def test_key_that_was_revoked_meanwhile_does_not_get_in(limited, answer, error_of):
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    _, front = chat(limited)

    limited.keys.revoke(b"sk-lp-known")
    answer(first, GOOD)
    turn(limited)

    assert error_of(front)["code"] == "invalid_api_key"
    assert len(limited.link.sent) == 1


def test_model_that_went_away_meanwhile_is_not_called(limited, answer, error_of):
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    _, front = chat(limited)

    limited.serve_only(model("acme/other"))
    answer(first, GOOD)
    turn(limited)

    assert error_of(front)["code"] == "model_not_found"


def test_call_moves_on_to_the_limit_that_holds_it_up(limited, answer):
    """First for its turn at the key's limit, then at the user's."""
    shared = meters_of_user(limited, ONE_AT_A_TIME)
    keys(limited, "a", "b", limits=("2 concurrent wait 30s",), shared=shared)
    running, _ = chat(limited, key=b"a", text="a1")
    chat(limited, key=b"b", text="b1")
    chat(limited, key=b"a", text="a2")

    answer(running, GOOD)
    turn(limited)

    assert prompts_sent(limited) == ["a1", "b1"]
    assert limited.gateway.queue.size == 1


def test_full_disk_refuses_those_who_wait(limited, answer, error_of):
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    _, front = chat(limited)

    limited.journal.healthy = False
    answer(first, GOOD)
    turn(limited)

    assert error_of(front)["code"] == "storage_unavailable"


def test_priority_of_a_call_survives_a_change_of_limits(limited, answer):
    """All steps are taken again, but what the call has waited is not forgotten."""
    limit(limited, ONE_AT_A_TIME)
    first, _ = chat(limited)
    second, front = chat(limited)
    since = second.queued_since

    limited.book.version += 1
    answer(first, GOOD)
    turn(limited)

    assert second.queued_since == since
    assert len(limited.link.sent) == 2
    answer(second, GOOD)
    assert front.head["status"] == "200 OK"


def test_front_that_is_gone_is_not_written_to(limited):
    limit(limited, ONE_AT_A_TIME)
    chat(limited)
    call, front = chat(limited, front=FakeFront())

    front.call = None
    call.caller_left()
    call.turned_away(None)

    assert front.sent == b""
