"""Counts tokens or money per minute, hour, day, week or month: reserved before a call, settled after it."""

from lingpai.quotas.calendar_meter import CalendarMeter, WindowCount
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import pop_oldest
from lingpai.quotas.thresholds import NO_THRESHOLDS, Thresholds
from lingpai.quotas.windows import CalendarWindow


class _EndedWindow:
    """What a window held when the next one began; kept while calls have reservations in it."""

    __slots__ = ("open", "used")

    def __init__(self, used: int, reservations: int) -> None:
        self.used = used
        self.open = reservations


class WeighingCalendarMeter(CalendarMeter):
    """At most `amount`, settled and reserved together, in each calendar window.

    A reservation belongs to the window that was current when it was made, whatever the clock shows when it is settled:
    each is remembered by its time and size, with the start of its window. Two of the same time and size can stand for
    each other. A window that has ended is remembered until its last reservation is settled.
    """

    __slots__ = ("_ended", "_open", "_open_here", "_reserved")

    def __init__(
        self,
        limit: Limit,
        window: CalendarWindow,
        subject: Subject,
        count: WindowCount,
        *,
        label: str,
        now: float,
        thresholds: Thresholds = NO_THRESHOLDS,
    ) -> None:
        self._reserved = self._open_here = 0
        self._open: dict[tuple[float, int], list[float]] = {}
        self._ended: dict[float, _EndedWindow] = {}
        super().__init__(limit, window, subject, count, label=label, now=now, thresholds=thresholds)

    @property
    def reserved(self) -> int:
        return self._reserved

    def take(self, now: float) -> None:
        self.reserve(now, 1)

    def give_back(self, admitted_at: float) -> None:
        self.settle(admitted_at, 1, 0, admitted_at)

    def reserve(self, now: float, amount: int) -> None:
        self._used += amount
        self._reserved += amount
        self._open_here += 1
        self.touched = now
        self._open.setdefault((now, amount), []).append(self.starts_at)

    def extra_room(self, admitted_at: float, reserved: int, now: float) -> int:
        starts = self._open.get((admitted_at, reserved))
        if starts is None:
            return 0
        if now >= self.ends_at:
            self._roll(now)
        used = self._used if starts[0] == self.starts_at else self._ended[starts[0]].used
        return max(self.amount - used, 0)

    def extend(self, admitted_at: float, reserved: int, extra: int, now: float) -> None:  # noqa: ARG002  as it was found
        start = pop_oldest(self._open, (admitted_at, reserved)) if extra else None
        if start is None:
            return
        self._open.setdefault((admitted_at, reserved + extra), []).append(start)
        if start == self.starts_at:
            self._used += extra
            self._reserved += extra
        else:
            self._ended[start].used += extra

    def adopt(self, admitted_at: float, amount: int) -> bool:
        if admitted_at < self.starts_at:
            return False
        self._reserved += amount
        self._open_here += 1
        self._open.setdefault((admitted_at, amount), []).append(self.starts_at)
        return True

    def settle(self, admitted_at: float, reserved: int, charged: int, now: float) -> None:
        start = pop_oldest(self._open, (admitted_at, reserved))
        if start is None:
            return
        if start != self.starts_at:
            self._settle_ended(start, charged - reserved)
            return
        self._open_here -= 1
        self._reserved -= reserved
        self._used += charged - reserved
        settled = self._used - self._reserved
        if settled >= self._warn_at:
            self._warn(settled, now)
        if charged < reserved and self.on_room is not None:
            self.on_room()

    def _settle_ended(self, start: float, change: int) -> None:
        window = self._ended[start]
        window.used += change
        window.open -= 1
        if not window.open:
            del self._ended[start]

    def _roll(self, now: float) -> None:
        if self._open_here:
            self._ended[self.starts_at] = _EndedWindow(self._used, self._open_here)
        self._reserved = self._open_here = 0
        super()._roll(now)
