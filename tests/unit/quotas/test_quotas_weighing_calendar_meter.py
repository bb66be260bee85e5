"""Tokens and money per calendar window: reserved, then settled."""

from quota_doubles import NOON_ISH, fresh_meters

from lingpai.quotas.grammar import parse_limit

MINUTE = 60.0


def test_what_is_reserved_counts_as_used_until_it_is_settled():
    [meter] = fresh_meters("1000 tokens/day")
    meter.reserve(NOON_ISH, 600)
    reserved = (meter.used, meter.reserved, meter.remaining(NOON_ISH))

    meter.settle(NOON_ISH, 600, 250, NOON_ISH + 5)

    assert reserved == (600, 600, 400)
    assert (meter.used, meter.reserved, meter.remaining(NOON_ISH + 5)) == (250, 0, 750)


def test_a_reservation_settled_in_the_next_window_changes_nothing_there():
    [meter] = fresh_meters("1000 tokens/minute")
    meter.reserve(NOON_ISH + 59, 900)
    meter.room(NOON_ISH + MINUTE)
    meter.reserve(NOON_ISH + MINUTE, 700)

    meter.settle(NOON_ISH + 59, 900, 100, NOON_ISH + MINUTE + 1)

    assert (meter.used, meter.reserved) == (700, 700)


def test_more_than_was_reserved_is_charged_only_as_far_as_its_own_window_has_it():
    [meter] = fresh_meters("1000 tokens/minute")
    meter.reserve(NOON_ISH, 300)
    meter.reserve(NOON_ISH + 1, 500)
    later = NOON_ISH + 90
    meter.room(later)
    meter.reserve(later, 900)

    assert meter.extra_room(NOON_ISH, 300, later) == 200
    meter.settle(NOON_ISH, 300, 500, later)
    assert meter.extra_room(NOON_ISH + 1, 500, later) == 0
    assert meter.extra_room(later, 900, later) == 100


def test_a_reservation_made_while_the_clock_was_set_back_belongs_to_the_window_it_was_made_in():
    [meter] = fresh_meters("1000 tokens/minute")
    meter.reserve(NOON_ISH + 30, 400)
    meter.room(NOON_ISH + 61)
    meter.reserve(NOON_ISH + 40, 300)

    meter.settle(NOON_ISH + 40, 300, 0, NOON_ISH + 41)

    assert (meter.used, meter.reserved) == (0, 0)
    assert meter.extra_room(NOON_ISH + 30, 400, NOON_ISH + 41) == 600


def test_what_was_never_reserved_is_not_settled():
    [meter] = fresh_meters("1000 tokens/day")
    meter.reserve(NOON_ISH, 300)

    meter.settle(NOON_ISH, 299, 0, NOON_ISH)
    extra = meter.extra_room(NOON_ISH - 1, 300, NOON_ISH)

    assert (meter.used, meter.reserved, extra) == (300, 300, 0)


def test_an_amount_lowered_below_what_is_used_leaves_nothing_and_breaks_nothing():
    [meter] = fresh_meters("1000 tokens/day")
    meter.reserve(NOON_ISH, 800)
    meter.change_limit(parse_limit("500 tokens/day"), NOON_ISH)
    lowered = (meter.used, meter.remaining(NOON_ISH), meter.extra_room(NOON_ISH, 800, NOON_ISH))

    meter.settle(NOON_ISH, 800, 450, NOON_ISH)

    assert lowered == (800, 0, 0)
    assert meter.remaining(NOON_ISH) == 50


def test_whoever_waits_is_called_when_a_call_used_less_than_it_reserved():
    [meter] = fresh_meters("1000 tokens/day")
    calls = []
    meter.on_room = lambda: calls.append(meter.remaining(NOON_ISH))
    for amount in (100, 200):
        meter.reserve(NOON_ISH, amount)

    meter.settle(NOON_ISH, 100, 100, NOON_ISH)
    meter.settle(NOON_ISH, 200, 50, NOON_ISH)

    assert calls == [850]
