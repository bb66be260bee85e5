"""Smooth rates, compared with a slow model that replays everything in fractions."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quota_doubles import NOON_ISH, SlowRate, admitted_at_once, fresh_meters

from lingpai.quotas.description import describe
from lingpai.quotas.grammar import parse_limit

RATES = [(1, 1), (3, 1), (10, 1), (600, 600), (7, 60), (1000, 1), (13, 86_400), (3_000_000, 7)]


def rate(amount: int, period: int, now: float = NOON_ISH):
    return fresh_meters(f"{amount}/{period}s", now=now)[0]


def test_after_a_pause_the_whole_amount_passes_at_once_and_then_one_per_interval():
    meter = rate(600, 600)

    assert admitted_at_once(meter, NOON_ISH) == 600
    assert admitted_at_once(meter, NOON_ISH + 0.999) == 0
    assert admitted_at_once(meter, NOON_ISH + 1) == 1
    assert admitted_at_once(meter, NOON_ISH + 11) == 10
    assert admitted_at_once(meter, NOON_ISH + 100_000) == 600


def test_it_says_when_the_next_request_and_when_the_whole_amount_is_possible():
    meter = rate(600, 600)
    admitted_at_once(meter, NOON_ISH)

    assert meter.free_at(NOON_ISH) == NOON_ISH + 1
    assert meter.resets_at(NOON_ISH) == NOON_ISH + 600
    assert (meter.used, meter.used_at(NOON_ISH + 300), meter.remaining(NOON_ISH + 300)) == (600, 300, 300)
    assert (meter.used_at(NOON_ISH + 600), meter.resets_at(NOON_ISH + 601)) == (0, NOON_ISH + 601)


@given(st.sampled_from(RATES), st.floats(1_600_000_000, 2_100_000_000))
def test_whoever_waits_exactly_as_told_gets_through_and_nobody_earlier(amount_and_period, now):
    amount, period = amount_and_period
    meter = rate(amount, period, now)
    if amount > 2000:
        meter.change_limit(parse_limit(f"2000/{period}s"), now)
    admitted_at_once(meter, now)

    free_at = meter.free_at(now)

    assert free_at > now
    assert not meter.room(free_at - 0.000002)
    assert meter.room(now + (free_at - now))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_it_admits_exactly_what_the_slow_model_admits(data):
    amount, period = data.draw(st.sampled_from(RATES))
    pauses = st.one_of(
        st.just(0.0),
        st.floats(0, period / amount * 3),
        st.floats(0, period * 1.5),
        st.integers(0, 5).map(float),
    )
    meter, model, now = rate(amount, period), SlowRate(amount, period), NOON_ISH

    for pause in data.draw(st.lists(pauses, max_size=60)):
        now += pause
        assert meter.room(now) == model.admits(now)
        assert meter.remaining(now) == model.remaining(now)
        if meter.room(now):
            meter.take(now)
            model.times.append(now)


_steps = st.tuples(
    st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 1.75, 2.0, 3.5]),  # pauses, in intervals of the rate
    st.sampled_from(["ask", "ask", "give back"]),
    st.integers(0, 99),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(1, 1), (3, 3), (10, 10), (5, 20)]), st.lists(_steps, max_size=40))
def test_giving_back_never_lets_one_request_too_many_through(amount_and_period, steps):
    amount, period = amount_and_period
    meter, model, now = rate(amount, period), SlowRate(amount, period), NOON_ISH

    for pause, action, choice in steps:
        now += pause * period / amount
        if action == "give back" and model.times:
            meter.give_back(model.times.pop(choice % len(model.times)))
        elif meter.room(now):
            meter.take(now)
            model.times.append(now)
        assert meter.remaining(now) <= model.remaining(now)


def test_giving_back_one_request_can_make_it_too_late_for_another():
    """The third request found just the slot of one of the first two taken; the other had come back by itself."""
    meter = rate(10, 10)
    for moment in [NOON_ISH, NOON_ISH, NOON_ISH + 1]:
        meter.room(moment)
        meter.take(moment)

    meter.give_back(NOON_ISH)
    meter.give_back(NOON_ISH)

    assert meter.remaining(NOON_ISH + 1) == 9


def test_a_request_after_which_another_found_part_of_its_slot_come_back_is_not_given_back():
    meter = rate(10, 10)
    for moment in [NOON_ISH, NOON_ISH + 0.5]:
        meter.room(moment)
        meter.take(moment)

    meter.give_back(NOON_ISH)

    assert meter.remaining(NOON_ISH + 1.0) == 9


def test_the_last_request_can_always_be_given_back():
    meter = rate(3, 60)
    admitted_at_once(meter, NOON_ISH)
    admitted_at_once(meter, NOON_ISH + 20)

    meter.give_back(NOON_ISH + 20)

    assert meter.remaining(NOON_ISH + 20) == 1


def test_under_load_a_request_can_be_given_back_though_others_came_after():
    meter = rate(100, 100)
    admitted_at_once(meter, NOON_ISH)
    admitted_at_once(meter, NOON_ISH + 50)
    admitted_at_once(meter, NOON_ISH + 60)

    meter.give_back(NOON_ISH + 50)

    assert meter.remaining(NOON_ISH + 60) == 1


def test_a_request_whose_slot_has_come_back_by_itself_is_not_given_back_twice():
    meter = rate(10, 10)
    meter.room(NOON_ISH)
    meter.take(NOON_ISH)
    later = NOON_ISH + 100
    admitted_at_once(meter, later)

    meter.give_back(NOON_ISH)

    assert not meter.room(later)


def test_a_clock_set_back_neither_forgives_nor_blocks():
    """An hour back: the bucket stays as full as it was, and refills from there."""
    meter = rate(600, 600)
    admitted_at_once(meter, NOON_ISH)
    an_hour_earlier = NOON_ISH - 3600

    assert not meter.room(an_hour_earlier)
    assert meter.free_at(an_hour_earlier) == an_hour_earlier + 1
    assert admitted_at_once(meter, an_hour_earlier + 10) == 10


def test_a_request_from_before_the_clock_was_set_back_is_not_given_back():
    meter = rate(10, 10)
    admitted_at_once(meter, NOON_ISH)
    meter.room(NOON_ISH - 3600)

    meter.give_back(NOON_ISH)

    assert not meter.room(NOON_ISH - 3600)


def test_callers_whose_clock_readings_are_out_of_order_gain_nothing():
    meter = rate(1000, 1)
    admitted_at_once(meter, NOON_ISH)

    admitted = sum(
        admitted_at_once(meter, NOON_ISH + moment) for moment in [0.01, 0.0, 0.01, 0.005, 0.01] * 20
    )

    assert admitted == 10


def test_a_caller_with_an_old_reading_of_the_clock_does_not_turn_it_back():
    """A request that took half a minute to arrive must not earn the others half a minute of refill."""
    meter = rate(10, 10)
    admitted_at_once(meter, NOON_ISH)

    meter.room(NOON_ISH - 30)

    assert not meter.room(NOON_ISH)


def test_another_amount_keeps_the_requests_that_are_outstanding():
    meter = rate(600, 600)
    admitted_at_once(meter, NOON_ISH)

    meter.change_limit(parse_limit("1200/10m"), NOON_ISH)
    raised = meter.remaining(NOON_ISH)
    meter.change_limit(parse_limit("60/10m"), NOON_ISH)

    assert raised == 600
    assert (meter.used_at(NOON_ISH), meter.remaining(NOON_ISH)) == (60, 0)
    # No more than the new amount is kept, of which one flows back every 10 s.
    assert meter.free_at(NOON_ISH) == NOON_ISH + 10


@pytest.mark.parametrize(("amount", "period"), RATES[:5])
def test_over_a_long_run_at_full_speed_nothing_is_lost_to_rounding(amount, period):
    meter, now = rate(amount, period), NOON_ISH
    admitted_at_once(meter, now)
    starts = []

    for _ in range(500):
        now = meter.free_at(now)
        assert admitted_at_once(meter, now) == 1
        starts.append(now)

    assert now == pytest.approx(NOON_ISH + 500 * period / amount, abs=0.000003)
    assert all(later > earlier for earlier, later in pairwise(starts))


@pytest.mark.parametrize("unit", ["", " tokens"])
def test_asking_about_a_time_long_past_changes_nothing(unit):
    """A call that took a minute asks what is left as of its beginning; the schedule stays where it is."""
    [meter] = fresh_meters(f"10{unit}/1m")
    meter.reserve(NOON_ISH, 10)
    past = NOON_ISH - 3600

    asked = [
        meter.left_and_wait(past),
        meter.used_at(past),
        meter.remaining(past),
        meter.resets_at(past),
        meter.free_at(past),
        describe([meter], past)[0]["remaining"],
    ]

    assert asked == [(0, 6), 10, 0, past + 60, past + 6, 0]
    assert (meter.remaining(NOON_ISH), meter.room(NOON_ISH), meter.free_at(NOON_ISH)) == (
        0,
        False,
        NOON_ISH + 6,
    )


@pytest.mark.parametrize("unit", ["", " tokens"])
def test_clock_set_back_lets_a_used_up_rate_refill_from_there(unit):
    [meter] = fresh_meters(f"10{unit}/1m")
    meter.reserve(NOON_ISH, 10)
    back = NOON_ISH - 3600

    assert [meter.room_for(back), meter.room_for(back + 30), meter.room_for(back + 60)] == [0, 5, 10]


@pytest.mark.parametrize("unit", ["", " tokens"])
def test_after_an_amount_is_lowered_nobody_waits_longer_than_a_period(unit):
    """As after a restart."""
    [meter] = fresh_meters(f"5000{unit}/1h")
    meter.reserve(NOON_ISH, 5000)

    meter.change_limit(parse_limit(f"10{unit}/1h"), NOON_ISH)

    assert (meter.used_at(NOON_ISH), meter.resets_at(NOON_ISH)) == (10, NOON_ISH + 3600)
    assert meter.remaining(NOON_ISH + 360) == 1


@pytest.mark.parametrize("unit", ["", " tokens"])
def test_what_was_forgiven_when_an_amount_was_lowered_is_not_given_back_too(unit):
    [meter] = fresh_meters(f"100{unit}/1h")
    for _ in range(100):
        meter.reserve(NOON_ISH, 1)
    meter.change_limit(parse_limit(f"10{unit}/1h"), NOON_ISH)

    for _ in range(50):
        meter.settle(NOON_ISH, 1, 0, NOON_ISH)

    assert meter.used_at(NOON_ISH) == 10
