"""Warnings when most of a limit is used."""

from quota_doubles import KEY, NOON_ISH, RecordedHistory, VirtualClock, attach

from lingpai.quotas.amounts import Amounts
from lingpai.quotas.limiter import MemoryLimiter, limit_set
from lingpai.quotas.under_way import CallUnderWay


class Warned:
    """A limiter of one key, and what it warned of."""

    def __init__(self, *limits: str, used: int = 0) -> None:
        self.clock = VirtualClock()
        self.limiter = MemoryLimiter(RecordedHistory([NOON_ISH] * used), self.clock, warn_at=(80, 100))
        self.warnings: list[tuple[str, int, float]] = []
        self.limiter.on_threshold = lambda meter, percent, now: self.warnings.append(
            (str(meter.limit), percent, now)
        )
        self.limits = limit_set(attach(self.limiter, KEY, *limits))

    def admit(self, times: int = 1) -> None:
        for _ in range(times):
            self.limiter.admit(self.limits, self.clock())


def test_each_percentage_warns_once_per_window():
    warned = Warned("10/hour")

    warned.admit(7)
    quiet = list(warned.warnings)
    warned.admit(20)

    assert quiet == []
    assert warned.warnings == [("10/hour", 80, NOON_ISH), ("10/hour", 100, NOON_ISH)]


def test_the_next_window_warns_again():
    warned = Warned("1/minute")
    warned.admit()
    warned.clock.advance(60)

    warned.admit()

    assert [percent for _, percent, _ in warned.warnings] == [80, 100, 80, 100]


def test_a_call_given_back_does_not_warn_a_second_time():
    warned = Warned("10/hour")
    warned.admit(8)
    warned.limiter.give_back(warned.limits, warned.clock())

    warned.admit()

    assert [percent for _, percent, _ in warned.warnings] == [80]


def test_what_was_passed_before_a_restart_warns_again():
    """A crash may have come between the call and the event; repeats are dropped where events are stored."""
    warned = Warned("10/hour", used=9)

    warned.admit()

    assert [percent for _, percent, _ in warned.warnings] == [80, 100]


def test_a_limit_that_is_used_up_when_it_is_loaded_warns_without_another_call():
    """There is none that it would admit."""
    warned = Warned("10/hour", used=10)

    assert [percent for _, percent, _ in warned.warnings] == [80, 100]


def test_what_is_only_reserved_does_not_warn():
    warned = Warned("1000 tokens/hour")
    reserved = warned.limiter.reserve(
        warned.limits, warned.clock(), Amounts(tokens=1000), Amounts(tokens=1000)
    )
    quiet = list(warned.warnings)

    assert isinstance(reserved, Amounts)
    warned.limiter.settle(warned.limits, warned.clock(), reserved, Amounts(tokens=850))

    assert quiet == []
    assert [percent for _, percent, _ in warned.warnings] == [80]


def test_calls_under_way_when_a_limit_is_set_warn_when_they_end():
    """What they hold is in the count that the new meter begins with, and only reserved all the same."""
    warned = Warned()
    calls = [CallUnderWay(NOON_ISH, Amounts(tokens=500)), CallUnderWay(NOON_ISH, Amounts(tokens=500))]
    held = [(call.admitted_at, call.held) for call in calls]
    texts = ("1000 tokens/hour", "2/hour")
    snapshot = warned.limiter.read_history(KEY, texts, held)
    limits = limit_set(warned.limiter.attach(KEY, texts, snapshot, under_way=calls))
    at_first = [limit for limit, _, _ in warned.warnings]

    for used in (450, 350):
        warned.limiter.settle(limits, NOON_ISH, calls[0].held, Amounts(tokens=used))

    assert at_first == ["2/hour"] * 2
    assert warned.warnings[2:] == [("1000 tokens/hour", 80, NOON_ISH)]


def test_a_raised_amount_warns_at_its_own_percentages():
    warned = Warned("10/hour")
    warned.admit(9)
    warned.limiter.attach(KEY, ("20/hour",))

    warned.admit(7)

    assert [(limit, percent) for limit, percent, _ in warned.warnings] == [("10/hour", 80), ("20/hour", 80)]


def test_a_lowered_amount_warns_of_what_it_makes_spent():
    """Under the new limit's name, without another call."""
    warned = Warned("20/hour")
    warned.admit(10)

    warned.limiter.attach(KEY, ("10/hour",))

    assert [(limit, percent) for limit, percent, _ in warned.warnings] == [("10/hour", 80), ("10/hour", 100)]


def test_a_lowered_amount_does_not_warn_of_a_window_that_has_ended():
    warned = Warned("20/hour")
    warned.admit(10)
    warned.clock.advance(3600)

    warned.limiter.attach(KEY, ("10/hour",))

    assert warned.warnings == []


def test_rates_and_concurrent_calls_do_not_warn():
    warned = Warned("1/10m", "1 concurrent")

    warned.admit(3)

    assert warned.warnings == []
