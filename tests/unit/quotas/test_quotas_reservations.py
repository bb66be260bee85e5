"""Calls that are weighed: reserved before, settled after, all or nothing."""

import pytest
from quota_doubles import KEY, NOON_ISH, USER, RecordedHistory, VirtualClock, attach, attach_set

from lingpai.quotas.amounts import NOTHING, ONE, Amounts
from lingpai.quotas.limiter import NO_LIMITS, MemoryLimiter, limit_set
from lingpai.quotas.refusal import Refusal


def limiter_at(now: float = NOON_ISH) -> tuple[MemoryLimiter, VirtualClock]:
    clock = VirtualClock(now)
    return MemoryLimiter(RecordedHistory(), clock), clock


def tokens(amount: int) -> Amounts:
    return Amounts(tokens=amount)


def test_a_set_says_whether_calls_must_be_weighed_and_settled():
    limiter, _ = limiter_at()

    kinds = {
        text: attach_set(limiter, KEY, text)
        for text in ("5/day", "5/1s", "5 concurrent", "5 tokens/day", "5 USD/1h", "5 CNY/day")
    }

    assert {text: (limits.weighs, limits.needs_settling) for text, limits in kinds.items()} == {
        "5/day": (False, False),
        "5/1s": (False, False),
        "5 concurrent": (False, True),
        "5 tokens/day": (True, True),
        "5 USD/1h": (True, True),
        "5 CNY/day": (True, True),
    }
    assert not NO_LIMITS.needs_settling


def test_the_most_that_all_limits_have_is_taken_from_each():
    limiter, clock = limiter_at()
    limits = limit_set(
        attach(limiter, KEY, "9/day", "1000 tokens/day") + attach(limiter, USER, "800 tokens/hour")
    )

    granted = limiter.reserve(limits, clock(), tokens(100), tokens(900))

    assert granted == Amounts(tokens=800)
    assert [meter.used for meter in limits.meters] == [1, 800, 800]
    assert [meter.reserved for meter in limits.meters] == [0, 800, 800]


def test_a_refusal_takes_nothing_from_any_unit():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "9/day", "4 concurrent", "1 USD/day", "1000 tokens/day")

    refusal = limiter.reserve(limits, clock(), tokens(1001), tokens(2000))

    assert isinstance(refusal, Refusal)
    assert str(refusal.meter.limit) == "1000 tokens/day"
    assert [meter.used for meter in limits.meters] == [0, 0, 0, 0]


def test_what_was_not_used_is_released_and_the_place_is_free_again():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1 concurrent", "9/day", "1000 tokens/day")
    reserved = limiter.reserve(limits, clock(), tokens(1), tokens(700))
    assert isinstance(reserved, Amounts)

    charged = limiter.settle(limits, clock(), reserved, Amounts(tokens=120))

    assert charged == Amounts(tokens=120, concurrent=0)
    assert [(meter.used, meter.reserved) for meter in limits.meters] == [(0, 0), (1, 0), (120, 0)]


def test_what_was_used_beyond_the_reservation_is_charged_as_far_as_every_limit_has_it():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1000 tokens/day", "700 tokens/hour", "5 USD/day")
    reserved = limiter.reserve(limits, clock(), tokens(600), tokens(600))
    assert isinstance(reserved, Amounts)

    charged = limiter.settle(limits, clock(), reserved, Amounts(tokens=2000, usd=3))

    assert charged == Amounts(tokens=700, usd=3, concurrent=0)
    assert [meter.used for meter in limits.meters] == [700, 700, 3]


def test_a_unit_without_limits_is_charged_what_was_used():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "5/day")

    charged = limiter.settle(limits, clock(), ONE, Amounts(tokens=123, usd=456))

    assert charged == Amounts(tokens=123, usd=456, concurrent=0)


def test_a_call_given_back_is_not_charged_at_all():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "2 concurrent", "5/day", "5/10s", "900 tokens/day", "900 tokens/1h")
    reserved = limiter.reserve(limits, clock(), tokens(500), tokens(500))
    assert isinstance(reserved, Amounts)

    limiter.give_back(limits, clock(), reserved)

    assert all(meter.used_at(clock()) == meter.reserved == 0 for meter in limits.meters)
    assert limiter.settle(NO_LIMITS, clock(), reserved, NOTHING) == NOTHING


def test_a_call_in_another_currency_passes_a_spent_money_limit():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "0.000001 USD/day")
    limiter.reserve(limits, clock(), Amounts(usd=1000), Amounts(usd=1000))

    in_yuan = limiter.reserve(limits, clock(), Amounts(cny=5), Amounts(cny=500))
    in_dollars = limiter.reserve(limits, clock(), Amounts(usd=1), Amounts(usd=1))

    assert in_yuan == Amounts(cny=500)
    assert isinstance(in_dollars, Refusal)


def test_a_day_of_requests_and_a_day_of_tokens_are_two_meters_with_names_of_their_own():
    limiter, _ = limiter_at()

    meters = attach(
        limiter, KEY, "5/day", "5 tokens/day", "5 tokens/day@Asia/Shanghai", "5 USD/1h", "2 concurrent"
    )

    assert [meter.name for meter in meters] == [
        "key-day",
        "key-day-tokens",
        "key-day@Asia/Shanghai-tokens",
        "key-1h-usd",
        "key-concurrent",
    ]


def test_a_users_limit_on_a_model_has_a_name_without_the_model():
    limiter, _ = limiter_at()

    [meter] = attach(limiter, ("user_model", "u1 acme/shout"), "5/day")

    assert meter.name == "user-model-day"


def test_of_two_limits_on_one_unit_and_window_the_smaller_holds_and_of_equals_the_shorter_wait():
    limiter, _ = limiter_at()

    meters = attach(
        limiter, KEY, "5/day", "3 tokens/day", "2 tokens/day", "5/1s wait 5s", "5/1s", "9 concurrent"
    )

    assert [str(meter.limit) for meter in meters] == ["5/day", "2 tokens/day", "5/1s", "9 concurrent"]


def test_a_refused_call_may_wait_as_long_as_every_refusing_limit_lets_it():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1/1s wait 5s", "1 concurrent wait 30s", "9/day")
    limiter.admit(limits, clock())

    refusal = limiter.admit(limits, clock())
    spent = attach_set(limiter, USER, "1/day", "1/1s wait 5s")
    limiter.admit(spent, clock())
    without_queue = limiter.admit(spent, clock())

    assert refusal is not None
    assert (refusal.wait_s, refusal.refusing) == (5, limits.meters[:2])
    assert without_queue is not None
    assert without_queue.wait_s == 0


@pytest.mark.parametrize("is_recorded", [True, False])
def test_what_a_call_used_beyond_its_reservation_is_reserved_until_it_is_recorded(is_recorded):
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1000 tokens/minute", "1200 tokens/1m", "5/day", "2 concurrent")
    at = clock()
    reserved = limiter.reserve(limits, at, Amounts(tokens=100), Amounts(tokens=100))
    assert isinstance(reserved, Amounts)
    used = Amounts(1, 5000, 0, 0, 0)

    extended = limiter.extend(limits, at, reserved, used)
    held = [(meter.used, meter.reserved) for meter in limits.meters]
    charged = Amounts(*map(min, used, extended)) if is_recorded else NOTHING
    limiter.settle(limits, at, extended, charged)

    assert extended == Amounts(1, 1000, 0, 0, 1)
    assert held == [(1000, 1000), (1000, 1000), (1, 0), (1, 0)]
    assert [meter.used for meter in limits.meters] == ([1000, 1000, 1, 0] if is_recorded else [0, 0, 0, 0])
    assert [meter.reserved for meter in limits.meters] == [0, 0, 0, 0]


def test_an_extended_reservation_belongs_to_the_window_it_began_in():
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1000 tokens/minute")
    at = clock()
    reserved = limiter.reserve(limits, at, Amounts(tokens=100), Amounts(tokens=100))
    assert isinstance(reserved, Amounts)
    clock.advance(60)

    extended = limiter.extend(limits, at, reserved, Amounts(tokens=300))
    extended = limiter.extend(limits, at, extended, Amounts(tokens=5000))
    now = limits.meters[0].used_at(clock())
    charged = limiter.settle(limits, at, extended, Amounts(tokens=5000))

    assert (extended.tokens, charged.tokens, now) == (1000, 1000, 0)
    assert limits.meters[0].remaining(clock()) == 1000


def test_extended_reservation_of_a_rate_is_given_back_part_by_part():
    """Each part as far as those who came after it found as much."""
    limiter, clock = limiter_at()
    limits = attach_set(limiter, KEY, "1000 tokens/1h")
    at = clock()
    reserved = limiter.reserve(limits, at, Amounts(tokens=100), Amounts(tokens=100))
    assert isinstance(reserved, Amounts)
    extended = limiter.extend(limits, at, reserved, Amounts(tokens=400))

    limiter.settle(limits, at, extended, Amounts(tokens=50))

    assert limits.meters[0].remaining(at) == 950
