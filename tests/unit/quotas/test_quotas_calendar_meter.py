"""Counting per calendar window."""

from hypothesis import given
from hypothesis import strategies as st
from quota_doubles import NOON_ISH, admitted_at_once, fresh_meters

from lingpai.quotas.grammar import parse_limit

DAY = 86_400.0
MIDNIGHT = NOON_ISH - 8 * 3600  # in UTC


def test_a_window_admits_exactly_its_amount():
    [meter] = fresh_meters("2000/day")

    assert admitted_at_once(meter, NOON_ISH) == 2000
    assert (meter.used, meter.remaining(NOON_ISH)) == (2000, 0)
    assert not meter.room(MIDNIGHT + DAY - 0.000001)


def test_the_whole_amount_is_back_at_the_very_instant_the_window_ends():
    [meter] = fresh_meters("5/day@Asia/Shanghai")
    admitted_at_once(meter, NOON_ISH)

    resets_at = meter.resets_at(NOON_ISH)

    assert resets_at == NOON_ISH + 8 * 3600
    assert meter.free_at(NOON_ISH) == resets_at
    assert admitted_at_once(meter, resets_at) == 5


def test_nothing_is_carried_over_from_a_window_that_was_not_used_up():
    [meter] = fresh_meters("5/day")

    assert admitted_at_once(meter, NOON_ISH + 3 * DAY) == 5


def test_a_clock_set_back_keeps_the_current_window_and_what_is_used_in_it():
    [meter] = fresh_meters("5/day")
    meter.room(NOON_ISH + DAY)
    meter.take(NOON_ISH + DAY)

    assert admitted_at_once(meter, NOON_ISH) == 4
    assert meter.resets_at(NOON_ISH) == MIDNIGHT + 2 * DAY
    assert not meter.room(MIDNIGHT + DAY)


def test_a_request_is_given_back_to_its_own_window():
    [meter] = fresh_meters("5/day")
    admitted_at_once(meter, NOON_ISH)

    meter.give_back(NOON_ISH)

    assert meter.remaining(NOON_ISH) == 1


def test_a_request_of_an_ended_window_is_not_taken_off_the_new_one():
    [meter] = fresh_meters("5/day")
    meter.room(NOON_ISH)
    meter.take(NOON_ISH)
    tomorrow = NOON_ISH + DAY
    admitted_at_once(meter, tomorrow)

    meter.give_back(NOON_ISH)

    assert not meter.room(tomorrow)


def test_a_request_of_before_the_clock_was_set_back_is_not_taken_off_a_window_that_does_not_have_it():
    """A limit that is set while the clock is back counts it in the window of now, and it ends in the next one."""
    [meter] = fresh_meters("5/minute")
    later = NOON_ISH + 90
    is_settled = meter.adopt(later, 1)
    admitted_at_once(meter, NOON_ISH + 60)

    if is_settled:
        meter.give_back(later)

    assert not meter.room(NOON_ISH + 61)


def test_another_amount_keeps_what_is_used():
    [meter] = fresh_meters("5/day")
    admitted_at_once(meter, NOON_ISH)

    meter.change_limit(parse_limit("7/day"), NOON_ISH)
    raised = meter.remaining(NOON_ISH)
    meter.change_limit(parse_limit("3/day"), NOON_ISH)

    assert raised == 2
    assert (meter.used_at(NOON_ISH), meter.remaining(NOON_ISH)) == (5, 0)
    assert b"q=3" in meter.policy


def test_the_length_of_the_window_follows_the_calendar():
    [meter] = fresh_meters("5/month")

    november = meter.window_seconds
    meter.room(NOON_ISH + 30 * DAY)

    assert (november, meter.window_seconds) == (30 * DAY, 31 * DAY)
    assert meter.policy.endswith(b"w=2678400")


@given(st.lists(st.tuples(st.floats(0, 40_000), st.integers(0, 4)), max_size=40), st.integers(1, 6))
def test_every_day_admits_the_amount_or_all_that_came_whichever_is_less(steps, amount):
    [meter] = fresh_meters(f"{amount}/day")
    now, asked, admitted = NOON_ISH, {}, {}

    for pause, requests in steps:
        now += pause
        day = (now - MIDNIGHT) // DAY
        for _ in range(requests):
            asked[day] = asked.get(day, 0) + 1
            if meter.room(now):
                meter.take(now)
                admitted[day] = admitted.get(day, 0) + 1

    assert admitted == {day: min(amount, requests) for day, requests in asked.items()}


def test_asking_about_a_later_window_does_not_begin_it():
    [meter] = fresh_meters("5/minute")
    meter.take(NOON_ISH)
    later = NOON_ISH + 60

    asked = [
        meter.used_at(later),
        meter.remaining(later),
        meter.left_and_wait(later),
        meter.resets_at(later),
        meter.free_at(later, 9),
    ]

    assert asked == [0, 5, (5, 60), later + 60, later + 60]
    assert (meter.used_at(NOON_ISH), meter.resets_at(NOON_ISH)) == (1, later)
