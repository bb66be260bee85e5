"""Loading meters: the history is waited for, read in a thread, and never trusted when incomplete."""

import asyncio
import time

import pytest
from quota_doubles import KEY, NOON_ISH, RecordedHistory, VirtualClock

from lingpai.errors import LingpaiError
from lingpai.quotas.amounts import ONE, Amounts
from lingpai.quotas.limiter import SNAPSHOT_LIFE_S, MemoryLimiter, limit_set
from lingpai.quotas.loader import MeterLoader, StaleLimitsError
from lingpai.quotas.under_way import CallUnderWay


class Journal:
    """A journal whose records reach the history when somebody waits for them."""

    def __init__(self) -> None:
        self.history = RecordedHistory()
        self.clock = VirtualClock()
        self.written: list[float] = []
        self.waits: list[int] = []
        self.stuck = False
        self.slow_s = 0.0
        self.limiter = MemoryLimiter(self.history, self.clock)
        self.loader = MeterLoader(self.limiter, mark=lambda: len(self.written), reached=self.reached)

    async def reached(self, mark: int) -> bool:
        await asyncio.sleep(0)
        self.waits.append(mark)
        self.clock.advance(self.slow_s)
        self.history.times = self.written[:mark]
        return not self.stuck

    def load(self, *limits: str):
        return asyncio.run(self.loader.load(KEY, limits, "key `ci`"))


def test_meters_are_loaded_from_the_history_and_then_found_in_memory():
    journal = Journal()

    first = journal.load("5/day")
    second = journal.load("5/day")

    assert first[0] is second[0]
    assert first[0].label == "key `ci`"
    assert journal.waits == [0]


def test_a_reload_waits_for_everything_recorded_before_the_meter_was_forgotten():
    journal = Journal()
    meters = journal.load("5/day")
    for _ in range(3):
        assert journal.limiter.admit(limit_set(meters), journal.clock()) is None
        journal.written.append(journal.clock())
    del meters
    journal.limiter.evict_idle(journal.clock.advance(60), 60)

    [meter] = journal.load("5/day")

    assert (meter.used, journal.waits) == (3, [0, 3])


def test_changed_limits_can_require_what_is_recorded_by_now():
    journal = Journal()
    journal.load("5/1s")
    journal.written = [NOON_ISH, NOON_ISH]
    journal.loader.require_history_up_to_now()

    [_, daily] = journal.load("5/1s", "5/day")

    assert daily.used == 2


def test_an_incomplete_history_fails_closed():
    journal = Journal()
    journal.stuck = True

    with pytest.raises(LingpaiError) as caught:
        journal.load("5/day")

    assert (caught.value.code, caught.value.headers) == ("storage_unavailable", {"retry-after": "5"})
    assert len(journal.limiter) == 0


def test_many_loads_at_once_end_with_one_meter():
    journal = Journal()

    async def load_ten_times():
        return await asyncio.gather(*(journal.loader.load(KEY, ("5/day",), "") for _ in range(10)))

    meters = asyncio.run(load_ten_times())

    assert len({id(meter) for [meter] in meters}) == 1
    assert len(journal.limiter) == 1


def test_a_snapshot_that_took_too_long_to_read_is_read_again():
    journal = Journal()
    slow_reads = iter([SNAPSHOT_LIFE_S, 0.0])
    read = journal.limiter.read_history

    def read_slowly(subject, limits, under_way):
        snapshot = read(subject, limits)
        journal.clock.advance(next(slow_reads))
        return snapshot

    journal.limiter.read_history = read_slowly  # type: ignore[method-assign]

    assert len(journal.load("5/day")) == 1
    assert next(slow_reads, None) is None


def test_a_bad_limit_is_a_value_error():
    with pytest.raises(ValueError, match="fortnight"):
        Journal().load("5/fortnight")


def test_limits_that_changed_meanwhile_are_not_attached():
    """Somebody who read the old limits must not put them back over the new ones."""
    journal = Journal()
    meters = journal.load("2/day")

    with pytest.raises(StaleLimitsError):
        asyncio.run(journal.loader.load(KEY, ("10/day",), "key `ci`", is_current=lambda: False))

    assert str(meters[0].limit) == "2/day"


def test_new_meters_count_the_calls_that_are_under_way():
    """Calls admitted by the old meters, whose records are still to come, are used up in the new ones."""
    journal = Journal()
    journal.loader = MeterLoader(
        journal.limiter,
        mark=lambda: len(journal.written),
        reached=journal.reached,
        under_way=lambda subject: [
            CallUnderWay(NOON_ISH - 1, Amounts(tokens=70)),
            CallUnderWay(NOON_ISH - 2, ONE),
        ],
    )
    journal.written = [NOON_ISH - 3]
    journal.loader.limits_changed(KEY)

    day, rate, tokens = journal.load("5/day", "5/10m", "100 tokens/day")

    assert (day.used, rate.used_at(NOON_ISH), tokens.used) == (3, 3, 70)


def test_calls_under_way_hold_a_reservation_of_the_new_meters_and_are_told():
    journal = Journal()
    told: list[tuple[str, ...]] = []
    calls = [
        CallUnderWay(
            NOON_ISH - 1,
            Amounts(tokens=70),
            lambda meters: told.append(tuple(str(meter.limit) for meter in meters)),
        )
    ]
    journal.loader = MeterLoader(
        journal.limiter, mark=lambda: 0, reached=journal.reached, under_way=lambda subject: calls
    )
    [old] = journal.load("9/day")
    journal.loader.limits_changed(KEY)

    _, tokens, rate, _ = journal.load("9/day", "100 tokens/day", "100 tokens/1h", "2 concurrent")

    assert told == [("100 tokens/day", "100 tokens/1h")]
    assert (tokens.reserved, rate.reserved, old.used) == (70, 70, 0)


class Race:
    """A key without limits, three calls of which are under way, one is recorded, and one is still on its way to the history."""

    def __init__(self) -> None:
        self.journal = journal = Journal()
        journal.written = [NOON_ISH - 5]
        calls = [CallUnderWay(NOON_ISH - each, Amounts(tokens=70)) for each in (1, 2, 3)]
        journal.loader = MeterLoader(
            journal.limiter,
            mark=lambda: len(journal.written),
            reached=journal.reached,
            under_way=lambda subject: calls,
        )
        journal.written.append(NOON_ISH - 4)

    def change(self, *before: str, after: tuple[str, ...]) -> tuple[int, ...]:
        """The key's limits change; somebody loads those `before` is told of. Answers what is used then."""
        began = time.monotonic()
        early = self.journal.load(*before)
        self.journal.loader.limits_changed(KEY, began=began)
        meters = self.journal.load(*after)
        assert not any(meter in early for meter in meters)
        return tuple(meter.used for meter in meters)


@pytest.mark.parametrize("before", [(), ("9/day",), ("9/day", "900 tokens/day", "8/hour", "2 concurrent")])
def test_meters_loaded_between_the_commit_of_a_change_and_its_announcement_are_made_again(before):
    """Who looked a key up, or asked what is left, has read the change already, but knew of no call under way."""
    assert Race().change(*before, after=("9/day", "900 tokens/day")) == (5, 210)


def test_meters_made_before_a_change_began_stay():
    journal = Journal()
    day, places = journal.load("9/day", "2 concurrent")
    journal.limiter.admit(limit_set([day, places]), journal.clock())
    began = time.monotonic()
    _, hour, _ = journal.load("9/day", "5/hour", "2 concurrent")
    journal.loader.limits_changed(KEY, began=began)
    again = journal.load("9/day", "5/hour", "2 concurrent")

    assert again[0] is day
    assert again[1] is not hour
    assert (again[2], places.used) == (places, 1)


def ending(journal: Journal, *, every_time: bool, charged: Amounts):
    """A call under way that ends while the history is read, and is charged that; once, or another one every time."""
    calls = [CallUnderWay(NOON_ISH - 1, Amounts(tokens=70), held_in_the_end=lambda: charged)]

    async def reached(mark):
        """What had ended when this was asked is there; then the next one ends."""
        journal.history.charges = [(call.admitted_at, charged) for call in calls[:-1]]
        calls.append(calls[-1]._replace(admitted_at=calls[-1].admitted_at - 1))
        return True

    loader = MeterLoader(
        journal.limiter,
        mark=lambda: 0,
        reached=reached,
        under_way=lambda subject: calls[-1:] if every_time or len(calls) == 1 else [],
    )
    loader.limits_changed(KEY)
    return loader


@pytest.mark.parametrize("tokens", [0, 30, 70, 9000])
def test_call_that_ends_while_the_history_is_read_is_counted_as_it_was_charged(tokens):
    """The history is read again, up to where it must have it."""
    journal = Journal()
    loader = ending(journal, every_time=False, charged=Amounts(tokens=tokens))

    day, rate = asyncio.run(loader.load(KEY, ("10000 tokens/day", "10000 tokens/24h"), ""))

    assert (day.used, day.reserved) == (tokens, 0)
    assert rate.used_at(NOON_ISH) == tokens


@pytest.mark.parametrize(("tokens", "counted"), [(30, 70), (70, 70), (9000, 9000)])
def test_where_calls_keep_ending_while_the_history_is_read_nothing_they_used_is_missing(tokens, counted):
    """It is not read for ever: the last one counts with what it held, or was charged if that is more."""
    journal = Journal()
    loader = ending(journal, every_time=True, charged=Amounts(tokens=tokens))

    day, rate = asyncio.run(loader.load(KEY, ("90000 tokens/day", "90000 tokens/24h"), ""))

    before = sum(amounts.tokens for _, amounts in journal.history.charges)
    assert (day.used, day.reserved) == (before + counted, 0)
    assert rate.used_at(NOON_ISH) >= before + counted - 3  # so much has flowed back
    assert len(journal.history.charges) == 2


@pytest.mark.parametrize("is_still_open", [True, False])
def test_record_handed_in_during_the_turn_in_which_limits_change_is_counted(is_still_open):
    """The journal writes what it was given in one turn of the loop at the start of the next."""
    journal = Journal()
    calls = [CallUnderWay(NOON_ISH, ONE)]
    journal.loader = MeterLoader(
        journal.limiter,
        mark=lambda: len(journal.written),
        reached=journal.reached,
        under_way=lambda subject: tuple(calls),
    )

    def end():
        calls.clear()
        asyncio.get_running_loop().call_soon(journal.written.append, NOON_ISH)

    async def change_and_load():
        if not is_still_open:
            end()
        journal.loader.limits_changed(KEY)
        load = asyncio.create_task(journal.loader.load(KEY, ("5/day",), ""))
        if is_still_open:
            end()
        return await load

    [meter] = asyncio.run(change_and_load())

    assert meter.used == 1
