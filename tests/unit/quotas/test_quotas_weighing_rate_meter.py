"""Smooth rates of tokens and money, compared with a schedule that reserves less from the beginning."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from quota_doubles import NOON_ISH, fresh_meters

from lingpai.quotas import weighing_rate_meter


def replayed(charges: list[list[float | int]], amount: int, period: int, now: float) -> int:
    """How much is left at `now` when the charges had been these from the beginning."""
    interval, arrival = Fraction(period, amount), Fraction(0)
    for time, charged in charges:
        arrival = max(arrival, Fraction(int(time * 1e6), 10**6)) + charged * interval
    backlog = max(arrival - Fraction(int(now * 1e6), 10**6), Fraction(0))
    return max(amount + (-backlog // interval), 0)


def test_after_a_pause_the_whole_amount_may_be_reserved_at_once_and_flows_back_evenly():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 1000)

    left = [meter.remaining(NOON_ISH + seconds) for seconds in (0, 0.0099, 0.01, 5, 10, 99)]

    assert left == [0, 0, 1, 500, 1000, 1000]
    assert (meter.free_at(NOON_ISH), meter.free_at(NOON_ISH, 300)) == (NOON_ISH + 0.01, NOON_ISH + 3)
    assert meter.free_at(NOON_ISH, 99_999) == NOON_ISH + 10


def test_what_was_not_used_is_given_back_though_others_came_since():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 600)
    meter.reserve(NOON_ISH + 1, 400)

    meter.settle(NOON_ISH + 1, 400, 100, NOON_ISH + 2)
    meter.settle(NOON_ISH, 600, 200, NOON_ISH + 2)

    # 200 at the start, of which 100 had come back when 100 were added; another second passed.
    assert meter.remaining(NOON_ISH + 2) == 1000 - (200 - 100 + 100 - 100)


def test_what_has_come_back_by_itself_is_not_given_back_again():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 600)
    later = NOON_ISH + 60
    meter.reserve(later, 1000)

    meter.settle(NOON_ISH, 600, 0, later)

    assert meter.remaining(later) == 0


_steps = st.tuples(
    st.sampled_from([0.0, 0.0, 0.25, 1.0, 2.0, 7.0]), st.integers(0, 400), st.integers(0, 99), st.booleans()
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(1000, 10), (700, 60), (400, 1)]), st.lists(_steps, max_size=40))
def test_after_any_settlement_the_schedule_is_as_if_only_that_had_been_reserved(amount_and_period, steps):
    amount, period = amount_and_period
    [meter] = fresh_meters(f"{amount} tokens/{period}s")
    charges: list[list[float | int]] = []
    open_charges: list[list[float | int]] = []
    now = NOON_ISH

    for pause, size, choice, is_settlement in steps:
        now += pause
        if is_settlement and open_charges:
            charge = open_charges.pop(choice % len(open_charges))
            reserved, charged = charge[1], charge[1] * choice // 99
            meter.settle(charge[0], reserved, charged, now)
            charge[1] = charged
        elif meter.remaining(now) >= size:
            meter.reserve(now, size)
            charges.append([now, size])
            open_charges.append(charges[-1])
        assert meter.remaining(now) == replayed(charges, amount, period, now)


@settings(max_examples=100, deadline=None)
@given(st.lists(_steps, min_size=10, max_size=60))
def test_with_few_marks_less_is_given_back_and_never_more(steps):
    most, weighing_rate_meter.MOST_MARKS = weighing_rate_meter.MOST_MARKS, 2
    try:
        [meter] = fresh_meters("1000 tokens/10s")
        charges: list[list[float | int]] = []
        now = NOON_ISH
        for pause, size, choice, is_settlement in steps:
            now += pause / 4
            if is_settlement and charges:
                charge = charges[choice % len(charges)]
                charged = charge[1] // 2
                meter.settle(charge[0], charge[1], charged, now)
                charge[1] = charged
            elif meter.remaining(now) >= size // 4:
                meter.reserve(now, size // 4)
                charges.append([now, size // 4])
            assert meter.remaining(now) <= replayed(charges, 1000, 10, now)
    finally:
        weighing_rate_meter.MOST_MARKS = most


def test_more_than_was_reserved_is_taken_when_the_call_is_settled():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 500)
    extra = meter.extra_room(NOON_ISH, 500, NOON_ISH + 2)

    meter.settle(NOON_ISH, 500, 900, NOON_ISH + 2)

    assert extra == 700
    assert meter.remaining(NOON_ISH + 2) == 300


def test_a_clock_set_back_loses_no_reservation():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 900)
    back = NOON_ISH - 3600
    meter.reserve(back, 100)

    meter.settle(NOON_ISH, 900, 400, back)
    meter.settle(back, 100, 0, back)

    assert (meter.reserved, meter.remaining(back)) == (0, 600)


def test_reserved_is_never_more_than_what_is_still_used():
    [meter] = fresh_meters("1000 tokens/10s")
    meter.reserve(NOON_ISH, 900)
    meter.room(NOON_ISH + 100)
    meter.reserve(NOON_ISH + 100, 5)

    assert meter.reserved == meter.used == 5
