"""Counting the calls that are under way."""

from quota_doubles import KEY, NOON_ISH, RecordedHistory, VirtualClock, admitted_at_once, fresh_meters

from lingpai.quotas.grammar import parse_limit
from lingpai.quotas.limiter import MemoryLimiter


def test_as_many_calls_as_the_limit_says_are_under_way_at_once_and_the_next_when_one_ends():
    [meter] = fresh_meters("3 concurrent")

    assert admitted_at_once(meter, NOON_ISH) == 3
    meter.settle(NOON_ISH, 1, 0, NOON_ISH)
    assert admitted_at_once(meter, NOON_ISH) == 1


def test_time_alone_gives_no_place_back():
    [meter] = fresh_meters("1 concurrent")
    admitted_at_once(meter, NOON_ISH)

    assert not meter.room(NOON_ISH + 1e9)
    assert not meter.room(NOON_ISH - 1e9)


def test_whoever_waits_is_called_when_a_call_ends_and_when_the_amount_is_raised():
    [meter] = fresh_meters("1 concurrent")
    admitted_at_once(meter, NOON_ISH)
    calls = []
    meter.on_room = lambda: calls.append(meter.remaining(NOON_ISH))

    meter.give_back(NOON_ISH)
    meter.change_limit(parse_limit("4 concurrent"), NOON_ISH)
    meter.change_limit(parse_limit("2 concurrent"), NOON_ISH)

    assert calls == [1, 4]


def test_a_lowered_amount_lets_nobody_in_until_enough_calls_have_ended():
    [meter] = fresh_meters("3 concurrent")
    admitted_at_once(meter, NOON_ISH)
    meter.change_limit(parse_limit("2 concurrent"), NOON_ISH)

    meter.give_back(NOON_ISH)
    full = meter.room(NOON_ISH)
    meter.give_back(NOON_ISH)

    assert (full, meter.room(NOON_ISH)) == (False, True)


def test_more_places_given_back_than_taken_do_not_make_more():
    [meter] = fresh_meters("1 concurrent")

    meter.give_back(NOON_ISH)

    assert admitted_at_once(meter, NOON_ISH) == 1


def test_a_limit_removed_and_set_again_still_counts_the_calls_under_way():
    limiter = MemoryLimiter(RecordedHistory(), VirtualClock())
    held = limiter.attach(KEY, ("2 concurrent",))
    admitted_at_once(held[0], NOON_ISH)
    limiter.attach(KEY, ())

    again = limiter.attach(KEY, ("3 concurrent",))

    assert again[0] is held[0]
    assert admitted_at_once(again[0], NOON_ISH) == 1
