"""What the tests of quotas share: a clock that stands still, a history kept in a list, and a slow, plain GCRA."""

from fractions import Fraction

from lingpai.quotas.amounts import UNITS, Amounts, Unit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import LimitSet, MemoryLimiter, limit_set
from lingpai.quotas.meter import Meter

# 2026-11-20 08:00 in UTC, a Friday; 16:00 in Shanghai
NOON_ISH = 1_795_161_600.0
KEY: Subject = ("key", "k1")
USER: Subject = ("user", "u1")


class VirtualClock:
    def __init__(self, now: float = NOON_ISH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class RecordedHistory:
    """A usage history in memory: `times` are everybody's requests, unless a subject has its own in `of`.

    `charges` are what everybody was charged in other units: when, and how much of each.
    """

    def __init__(self, times: list[float] | None = None) -> None:
        self.times = times if times is not None else []
        self.of: dict[Subject, list[float]] = {}
        self.charges: list[tuple[float, Amounts]] = []

    def charged_since(self, subject: Subject, unit: Unit, since: float) -> int:
        return sum(amount for _, amount in self.charges_since(subject, unit, since))

    def charges_since(self, subject: Subject, unit: Unit, since: float) -> list[tuple[float, int]]:
        index = UNITS.index(unit)
        requests = self.of.get(subject, self.times) if unit == "requests" else []
        charges = [(time, 1) for time in requests] + [
            (time, amounts[index]) for time, amounts in self.charges
        ]
        return sorted(charge for charge in charges if charge[0] >= since)


class SlowRate:
    """GCRA as the textbook writes it, in fractions: replays all requests for every question."""

    def __init__(self, amount: int, period: int) -> None:
        self.increment = Fraction(period, amount)
        self.tolerance = period - self.increment
        self.times: list[float] = []

    def admits(self, now: float) -> bool:
        return self._arrival() - _reading(now) <= self.tolerance

    def remaining(self, now: float) -> int:
        busy = max(self._arrival(), _reading(now))
        return max(0, (_reading(now) + self.tolerance - busy) // self.increment + 1)

    def _arrival(self) -> Fraction:
        arrival = Fraction(0)
        for time in self.times:
            arrival = max(arrival, _reading(time)) + self.increment
        return arrival


def _reading(now: float) -> Fraction:
    """The clock is read in whole microseconds."""
    return Fraction(int(now * 1e6), 1_000_000)


def attach(limiter: MemoryLimiter, subject: Subject, *limits: str, label: str = "") -> tuple[Meter, ...]:
    return limiter.attach(subject, limits, limiter.read_history(subject, limits), label=label)


def attach_set(limiter: MemoryLimiter, subject: Subject, *limits: str) -> LimitSet:
    return limit_set(attach(limiter, subject, *limits))


def fresh_meters(
    *limits: str, subject: Subject = KEY, now: float = NOON_ISH, label: str = ""
) -> tuple[Meter, ...]:
    return attach(MemoryLimiter(RecordedHistory(), VirtualClock(now)), subject, *limits, label=label)


def admitted_at_once(meter: Meter, now: float) -> int:
    """How many requests the meter lets through at `now`, by trying."""
    count = 0
    while meter.room(now):
        meter.take(now)
        count += 1
    return count
