"""The memory engine: all or nothing, exactness against a slow model, and how meters come and go."""

import asyncio
import gc
import random

import pytest
from quota_doubles import KEY, NOON_ISH, USER, RecordedHistory, VirtualClock, attach

from lingpai.quotas.limiter import SNAPSHOT_LIFE_S, HistoryNeededError, MemoryLimiter, limit_set


def limiter_at(
    now: float = NOON_ISH, history: RecordedHistory | None = None
) -> tuple[MemoryLimiter, VirtualClock]:
    clock = VirtualClock(now)
    return MemoryLimiter(history or RecordedHistory(), clock), clock


def test_exactly_2000_of_3000_calls_by_64_concurrent_callers_are_admitted():
    limiter, clock = limiter_at()
    meters = attach(limiter, KEY, "2000/day@Asia/Shanghai")
    calls, outcomes = iter(range(3000)), []

    async def caller() -> None:
        for _ in calls:
            await asyncio.sleep(0)
            outcomes.append(limiter.admit(limit_set(meters), clock()))

    async def all_callers() -> None:
        await asyncio.gather(*(caller() for _ in range(64)))

    asyncio.run(all_callers())

    assert (len(outcomes), outcomes.count(None)) == (3000, 2000)
    assert all(refusal is None for refusal in outcomes[:2000])


def test_a_refusal_takes_from_none_of_the_limits():
    limiter, clock = limiter_at()
    [by_day, by_second] = attach(limiter, KEY, "100/day", "1/1s")
    [of_user] = attach(limiter, USER, "50/week")
    meters = (of_user, by_day, by_second)

    assert limiter.admit(limit_set(meters), clock()) is None
    assert limiter.admit(limit_set(meters), clock()) is not None
    assert [meter.used_at(clock()) for meter in meters] == [1, 1, 1]


def test_of_several_refusals_the_caller_hears_of_the_longest():
    limiter, clock = limiter_at()
    meters = attach(limiter, KEY, "1/1s", "1/hour", "1/minute")
    limiter.admit(limit_set(meters), clock())

    refusal = limiter.admit(limit_set(meters), clock())

    assert refusal is not None
    assert refusal.meter is meters[1]
    assert limiter.admit(limit_set(meters), clock() + refusal.retry_after) is None


def test_without_limits_everything_is_admitted():
    limiter, clock = limiter_at()

    meters = limiter.attach(KEY, ())

    assert meters == ()
    assert limiter.admit(limit_set(meters), clock()) is None


def test_a_call_given_back_is_given_back_to_every_limit():
    limiter, clock = limiter_at()
    meters = attach(limiter, KEY, "5/day", "5/10s")
    limiter.admit(limit_set(meters), clock())

    limiter.give_back(limit_set(meters), clock())

    assert [meter.remaining(clock()) for meter in meters] == [5, 5]


def test_two_keys_of_a_user_share_the_users_meter():
    limiter, clock = limiter_at()
    first = attach(limiter, ("key", "a"), "5/day") + attach(limiter, USER, "3/day")
    second = attach(limiter, ("key", "b"), "5/day") + attach(limiter, USER, "3/day")

    admitted = [limiter.admit(limit_set(meters), clock()) is None for meters in [first, second] * 2]

    assert admitted == [True, True, True, False]


def test_a_new_meter_goes_on_where_the_history_ends():
    history = RecordedHistory([NOON_ISH - 20 * 3600, NOON_ISH - 60, NOON_ISH - 2])
    limiter, clock = limiter_at(history=history)

    meters = attach(limiter, KEY, "5/day", "5/1d")

    # In 20 hours of the rate (one request every 4.8 hours) the oldest has come back.
    assert [meter.remaining(clock()) for meter in meters] == [3, 3]


def test_a_live_meter_wins_over_a_snapshot():
    limiter, clock = limiter_at()
    snapshot = limiter.read_history(KEY, ("5/day",))
    first = limiter.attach(KEY, ("5/day",), snapshot)
    limiter.admit(limit_set(first), clock())

    second = limiter.attach(KEY, ("5/day",), snapshot)

    assert second == first
    assert second[0].used == 1


def test_a_changed_amount_keeps_what_is_used_and_reaches_calls_that_hold_the_meter_already():
    limiter, clock = limiter_at()
    held = attach(limiter, KEY, "1/day", "9/1s")
    limiter.admit(limit_set(held), clock())

    [changed] = limiter.attach(KEY, ("2/day",))

    assert changed is held[0]
    assert (changed.used, str(changed.limit)) == (1, "2/day")
    assert limiter.admit(limit_set([changed]), clock()) is None
    assert limiter.admit(limit_set([changed]), clock()) is not None


def test_a_limit_that_was_removed_and_set_again_asks_the_history():
    history = RecordedHistory()
    limiter, clock = limiter_at(history=history)
    forgotten = []
    limiter.on_forget = lambda: forgotten.append(clock())
    limiter.admit(limit_set(attach(limiter, KEY, "5/day", "3/hour")), clock())
    history.times = [clock()] * 4
    attach(limiter, KEY, "5/day")

    assert forgotten
    with pytest.raises(HistoryNeededError):
        limiter.attach(KEY, ("5/day", "3/hour"))
    meters = attach(limiter, KEY, "5/day", "3/hour")
    assert [meter.used_at(clock()) for meter in meters] == [1, 4]


def test_of_two_limits_on_the_same_window_the_smaller_holds():
    limiter, _ = limiter_at()

    meters = attach(limiter, KEY, "5/1m", "3/60s", "4/1m")

    assert [str(meter.limit) for meter in meters] == ["3/1m"]


def test_limits_on_the_same_unit_in_two_zones_have_names_of_their_own():
    limiter, _ = limiter_at()

    meters = attach(limiter, KEY, "5/day", "5/day@Asia/Shanghai", "9/10m")

    assert [meter.name for meter in meters] == ["key-day", "key-day@Asia/Shanghai", "key-10m"]


@pytest.mark.parametrize("age", [SNAPSHOT_LIFE_S, -1.0])
def test_an_old_snapshot_is_refused(age):
    limiter, clock = limiter_at()
    snapshot = limiter.read_history(KEY, ("5/day",))
    clock.advance(age)

    with pytest.raises(HistoryNeededError):
        limiter.attach(KEY, ("5/day",), snapshot)


def test_a_snapshot_of_other_windows_or_another_subject_is_refused():
    limiter, _ = limiter_at()
    snapshot = limiter.read_history(KEY, ("5/day",))

    for subject, limits in [(KEY, ("5/day", "5/hour")), (USER, ("5/day",)), (KEY, ("5/day@Asia/Shanghai",))]:
        with pytest.raises(HistoryNeededError):
            limiter.attach(subject, limits, snapshot)


def test_a_bad_limit_is_a_value_error_and_changes_nothing():
    limiter, _ = limiter_at()

    with pytest.raises(ValueError, match="fortnight"):
        attach(limiter, KEY, "5/day", "5/fortnight")
    assert len(limiter) == 0


def test_an_idle_meter_leaves_memory_and_the_limiter_says_so():
    limiter, clock = limiter_at()
    forgotten = []
    limiter.on_forget = lambda: forgotten.append(True)
    attach(limiter, KEY, "5/day", "5/1s")

    early = limiter.evict_idle(clock.advance(59), 60)
    late = limiter.evict_idle(clock.advance(1), 60)
    gc.collect()

    assert (early, late, len(limiter), len(forgotten)) == (0, 1, 0, 2)


def test_a_meter_in_use_by_a_call_survives_eviction_and_is_found_again():
    limiter, clock = limiter_at()
    held = attach(limiter, KEY, "5/day")
    limiter.admit(limit_set(held), clock())

    limiter.evict_idle(clock.advance(3600), 60)
    again = limiter.attach(KEY, ("5/day",))

    assert again[0] is held[0]
    assert again[0].used == 1


def test_a_limit_removed_and_set_again_asks_the_history_also_when_a_call_outlived_eviction():
    """A long stream holds the old meter, which the calls in between did not pass."""
    history = RecordedHistory([NOON_ISH - 10])
    limiter, clock = limiter_at(history=history)
    held = limit_set(attach(limiter, KEY, "5/day", "5/10m", "2 concurrent"))
    limiter.admit(held, clock())
    forgotten = []
    limiter.on_forget = lambda: forgotten.append(None)
    limiter.evict_idle(clock.advance(3600), 60)
    found_again = len(limiter)

    limiter.attach(KEY, ())
    history.times += [NOON_ISH] * 4

    with pytest.raises(HistoryNeededError):
        limiter.attach(KEY, ("5/day",))
    assert [meter.used for meter in attach(limiter, KEY, "5/day", "2 concurrent")] == [5, 1]
    assert (found_again, len(limiter), len(forgotten)) == (3, 2, 1)
    assert len(held.meters) == 3


def test_a_meter_that_is_used_or_asked_for_is_not_evicted():
    limiter, clock = limiter_at()
    limiter.admit(limit_set(attach(limiter, KEY, "5/day")), clock.advance(100))
    attach(limiter, USER, "5/1m")

    assert limiter.evict_idle(clock.advance(59), 60) == 0


def test_eviction_looks_at_a_few_at_a_time_and_comes_round():
    limiter, clock = limiter_at()
    for number in range(10):
        attach(limiter, ("key", f"k{number}"), "5/day")
    clock.advance(100)
    attach(limiter, ("key", "k0"), "5/day")

    evicted = [limiter.evict_idle(clock(), 60, most=4) for _ in range(4)]

    assert evicted == [4, 4, 1, 0]
    assert len(limiter) == 1


def test_eviction_sooner_than_a_snapshot_lives_is_a_mistake():
    limiter, clock = limiter_at()

    with pytest.raises(ValueError, match="at least 60"):
        limiter.evict_idle(clock(), 59)


def test_a_meter_loaded_again_after_eviction_goes_on_exactly():
    history = RecordedHistory()
    limiter, clock = limiter_at(history=history)
    generator = random.Random(8741)
    expected = attach(MemoryLimiter(RecordedHistory(), clock), KEY, "40/hour", "10/10m")

    for _ in range(300):
        clock.advance(generator.choice([1.0, 20.0, 20.5, 70.25, 700.0]))
        meters = attach(limiter, KEY, "40/hour", "10/10m")
        refusal = limiter.admit(limit_set(meters), clock())
        assert (refusal is None) == (limiter.admit(limit_set(expected), clock()) is None)
        if refusal is None:
            history.times.append(clock())
        del meters, refusal
        limiter.evict_idle(clock() + 60, 60)
        assert len(limiter) == 0
