"""Rebuilds what is used from the usage history, after a start or when a counter had left memory.

Everything here blocks and runs in a worker thread; it shares nothing with the event loop but immutable values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lingpai.quotas.calendar_meter import WindowCount
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject, UsageHistory
from lingpai.quotas.rate_meter import MICROSECONDS
from lingpai.quotas.windows import CalendarWindow, Duration, Window

REPLAY_MOST: Final = 100_000
"""Above so many requests in two periods a rate is rebuilt from their number, not from each one's time."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a subject had used at `read_at`: a count per calendar window, a backlog (see rate_meter) per duration."""

    subject: Subject
    read_at: float
    counts: Mapping[CalendarWindow, WindowCount]
    backlogs: Mapping[Duration, int]

    def covers(self, window: Window) -> bool:
        return window in self.counts or window in self.backlogs


def read_snapshot(
    history: UsageHistory,
    subject: Subject,
    limits: Iterable[Limit],
    now: float,
    under_way: Sequence[float] = (),
) -> Snapshot:
    """What `subject` has used at `now` in the windows of `limits`. Blocking.

    `under_way` are the times of admitted calls that the history lacks. One that is recorded meanwhile counts twice,
    which errs on the safe side.
    """
    if under_way:
        history = _WithCallsUnderWay(history, sorted(under_way))
    counts: dict[CalendarWindow, WindowCount] = {}
    backlogs: dict[Duration, int] = {}
    for limit in limits:
        if isinstance(limit.window, CalendarWindow):
            counts[limit.window] = _count(history, subject, limit.window, now)
        else:
            backlogs[limit.window] = _backlog(history, subject, limit.amount, limit.window.seconds, now)
    return Snapshot(subject, now, counts, backlogs)


class _WithCallsUnderWay:
    """A history that has the calls under way as well."""

    def __init__(self, history: UsageHistory, under_way: list[float]) -> None:
        self._history = history
        self._under_way = under_way

    def requests_since(self, subject: Subject, since: float) -> int:
        return self._history.requests_since(subject, since) + sum(time >= since for time in self._under_way)

    def request_times_since(self, subject: Subject, since: float) -> list[float]:
        recorded = self._history.request_times_since(subject, since)
        return sorted(recorded + [time for time in self._under_way if time >= since])


def _count(history: UsageHistory, subject: Subject, window: CalendarWindow, now: float) -> WindowCount:
    start, end = window.bounds(now)
    return WindowCount(start, end, history.requests_since(subject, start))


def _backlog(history: UsageHistory, subject: Subject, amount: int, period: int, now: float) -> int:
    """The backlog at `now`, exact when the period before the last two was quiet, and never less than the truth."""
    since = now - 2 * period
    if history.requests_since(subject, since - period) == 0:
        return 0
    if history.requests_since(subject, since) > REPLAY_MOST:
        return _most_after(history.requests_since(subject, now - period), amount, period)
    times = history.request_times_since(subject, since)
    # Asked last: a request that arrives meanwhile makes the start look busy, which errs on the safe side.
    was_busy = history.requests_since(subject, since - period) > len(times)
    return replay(times, amount, period, busy_until=since if was_busy else None, now=now)


def replay(times: Iterable[float], amount: int, period: int, *, busy_until: float | None, now: float) -> int:
    """The backlog at `now` that requests admitted at `times` (ascending) leave behind.

    With `busy_until` the schedule is taken to be full at that instant. After a request at time t the backlog of a
    schedule that was kept is at most a full period, whatever the amount was then.
    """
    increment = period * MICROSECONDS
    full = increment * amount
    arrival = 0 if busy_until is None else _scaled(busy_until, amount) + full
    for time in times:
        at = _scaled(time, amount)
        arrival = min(max(arrival, at) + increment, at + full)
    return min(max(arrival - _scaled(now, amount), 0), full)


def _most_after(requests: int, amount: int, period: int) -> int:
    # A schedule full one period ago is at rest now; since then it can only have grown by the requests since.
    return min(requests, amount) * period * MICROSECONDS


def _scaled(instant: float, amount: int) -> int:
    return int(instant * 1e6) * amount
