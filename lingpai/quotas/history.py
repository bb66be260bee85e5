"""Rebuilds what is used from the usage history, after a start or when a counter had left memory.

Everything here blocks and runs in a worker thread; it shares nothing with the event loop but immutable values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from lingpai.quotas.amounts import UNITS, Amounts, Unit
from lingpai.quotas.calendar_meter import WindowCount
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject, UsageHistory
from lingpai.quotas.rate_meter import MICROSECONDS
from lingpai.quotas.windows import CalendarWindow, Duration

LONGEST_CALL_S: Final = 3600.0
"""How long before a time a call may have begun that used tokens or money after it."""
REPLAY_MOST: Final = 100_000
"""Above so many requests in two periods a rate is rebuilt from what they used, not from each one's time."""

Held: TypeAlias = tuple[float, Amounts]
"""When a call was admitted, and what it took and reserved."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a subject had used at `read_at`: a count per calendar window, a backlog (see rate_meter) per duration."""

    subject: Subject
    read_at: float
    counts: Mapping[tuple[Unit, CalendarWindow], WindowCount]
    backlogs: Mapping[tuple[Unit, Duration], int]

    def covers(self, limit: Limit) -> bool:
        """Whether what `limit` counts is here; concurrent requests are in no history."""
        key = (limit.unit, limit.window)
        return limit.window is None or key in self.counts or key in self.backlogs


def read_snapshot(
    history: UsageHistory,
    subject: Subject,
    limits: Iterable[Limit],
    now: float,
    under_way: Sequence[Held] = (),
) -> Snapshot:
    """What `subject` has used at `now` in the windows of `limits`. Blocking.

    `under_way` are admitted calls that the history lacks. One that is recorded meanwhile counts twice, and what one
    gives back later is not known here: both err on the safe side.
    """
    if under_way:
        history = _WithCallsUnderWay(history, under_way)
    counts: dict[tuple[Unit, CalendarWindow], WindowCount] = {}
    backlogs: dict[tuple[Unit, Duration], int] = {}
    for limit in limits:
        if isinstance(limit.window, CalendarWindow):
            counts[limit.unit, limit.window] = _count(history, subject, limit.unit, limit.window, now)
        elif limit.window is not None:
            backlogs[limit.unit, limit.window] = _Rebuild(history, subject, limit.unit).backlog(
                limit.amount, limit.window.seconds, now
            )
    return Snapshot(subject, now, counts, backlogs)


class _WithCallsUnderWay:
    """A history that has the calls under way as well."""

    def __init__(self, history: UsageHistory, under_way: Sequence[Held]) -> None:
        self._history = history
        self._under_way = under_way

    def charged_since(self, subject: Subject, unit: Unit, since: float) -> int:
        recorded = self._history.charged_since(subject, unit, since)
        return recorded + sum(amount for _, amount in self._since(unit, since))

    def charges_since(self, subject: Subject, unit: Unit, since: float) -> list[tuple[float, int]]:
        return sorted(self._history.charges_since(subject, unit, since) + self._since(unit, since))

    def _since(self, unit: Unit, since: float) -> list[tuple[float, int]]:
        index = UNITS.index(unit)
        return [(time, amounts[index]) for time, amounts in self._under_way if time >= since]


def _count(
    history: UsageHistory, subject: Subject, unit: Unit, window: CalendarWindow, now: float
) -> WindowCount:
    start, end = window.bounds(now)
    return WindowCount(start, end, history.charged_since(subject, unit, start))


class _Rebuild:
    """Rebuilds the schedule of one rate."""

    def __init__(self, history: UsageHistory, subject: Subject, unit: Unit) -> None:
        self._history = history
        self._subject = subject
        self._unit: Unit = unit

    def backlog(self, amount: int, period: int, now: float) -> int:
        """The backlog at `now`, exact when the period before the last two was quiet, never less than the truth."""
        # What a call used beyond its reservation is taken when it ends, which may be long after it began.
        open_s = 0.0 if self._unit == "requests" else LONGEST_CALL_S
        since = now - 2 * period - open_s
        if self._charged(since - period) == 0:
            return 0
        # How many calls there are to replay is about how many requests were charged, whatever the unit.
        if self._history.charged_since(self._subject, "requests", since) > REPLAY_MOST:
            return _most_after(self._charged(now - period - open_s), amount, period)
        charges = self._history.charges_since(self._subject, self._unit, since)
        # Asked last: a call that arrives meanwhile makes the start look busy, which errs on the safe side.
        was_busy = self._charged(since - period) > sum(charged for _, charged in charges)
        return replay(charges, amount, period, busy_until=since if was_busy else None, now=now)

    def _charged(self, since: float) -> int:
        return self._history.charged_since(self._subject, self._unit, since)


def replay(
    charges: Iterable[tuple[float, int]], amount: int, period: int, *, busy_until: float | None, now: float
) -> int:
    """The backlog at `now` that `charges` (times ascending, and how much at each) leave behind.

    With `busy_until` the schedule is taken to be full at that instant. After a request at time t the backlog of a
    schedule that was kept is at most a full period, whatever the amount was then.
    """
    increment = period * MICROSECONDS
    full = increment * amount
    arrival = 0 if busy_until is None else _scaled(busy_until, amount) + full
    for time, charged in charges:
        at = _scaled(time, amount)
        arrival = min(max(arrival, at) + charged * increment, at + full)
    return min(max(arrival - _scaled(now, amount), 0), full)


def _most_after(charged: int, amount: int, period: int) -> int:
    # A schedule full one period ago is at rest now; since then it can only have grown by what was charged since.
    return min(charged, amount) * period * MICROSECONDS


def _scaled(instant: float, amount: int) -> int:
    return int(instant * 1e6) * amount
