"""Counts requests per minute, hour, day, week or month; tokens and money stand on it (weighing_calendar_meter)."""

from dataclasses import dataclass
from math import ceil

from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import Meter
from lingpai.quotas.thresholds import NO_THRESHOLDS, Thresholds
from lingpai.quotas.windows import CalendarWindow


@dataclass(frozen=True, slots=True)
class WindowCount:
    """A calendar window and what is counted in it so far."""

    starts_at: int
    ends_at: int
    used: int


class CalendarMeter(Meter):
    """At most `amount` requests in each calendar window.

    The window moves forward when the clock passes its end, and never back: when the clock is set back, the window that
    had begun stays the current one, with what is used in it, until the clock passes its end again. Only what takes
    moves it: who merely asks about a later time hears what would be then.
    """

    __slots__ = ("_thresholds", "_used", "_warn_at", "_window", "ends_at", "starts_at")

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
        self._window = window
        self._used = count.used
        self._thresholds = thresholds
        self.starts_at = float(count.starts_at)
        self.ends_at = float(count.ends_at)
        super().__init__(limit, subject, label=label, now=now)
        self._warn_at = thresholds.next_above(0, self.amount)

    @property
    def used(self) -> int:
        return self._used

    @property
    def window_seconds(self) -> int:
        return int(self.ends_at - self.starts_at)

    def room(self, now: float) -> bool:
        if now >= self.ends_at:
            self._roll(now)
        return self._used < self.amount

    def take(self, now: float) -> None:
        self.touched = now
        self._used = used = self._used + 1
        if used >= self._warn_at:
            self._warn(used, now)

    def give_back(self, admitted_at: float) -> None:
        # A request of an earlier window is not in this count, and one admitted while the clock was set back might not be.
        if admitted_at >= self.starts_at and self._used > 0:
            self._used -= 1
            if self.on_room is not None:
                self.on_room()

    def adopt(self, admitted_at: float, amount: int) -> bool:  # noqa: ARG002  requests are one by one
        # One of before the clock was set back stays counted here: later it would be taken for one of the window to come.
        return admitted_at < self.ends_at

    def room_for(self, now: float) -> int:
        if now >= self.ends_at:
            self._roll(now)
        left = self.amount - self._used
        return left if left > 0 else 0  # noqa: FURB136  as below

    def used_at(self, now: float) -> int:
        return 0 if now >= self.ends_at else self._used

    def remaining(self, now: float) -> int:
        return self.amount if now >= self.ends_at else max(self.amount - self._used, 0)

    def left_and_wait(self, now: float) -> tuple[int, int]:
        if now >= self.ends_at:
            return self.amount, ceil(self.resets_at(now) - now)
        left = self.amount - self._used
        return (left if left > 0 else 0), ceil(self.ends_at - now)  # noqa: FURB136  a call of max costs as much as all else here

    def resets_at(self, now: float) -> float:
        return self.ends_at if now < self.ends_at else float(self._window.bounds(now)[1])

    def free_at(self, now: float, amount: int = 1) -> float:
        return now if self.remaining(now) >= amount else self.resets_at(now)

    def _change_amount(self, amount: int, now: float) -> None:
        self.amount = amount
        if now >= self.ends_at:
            self._roll(now)
        self.warn_from_the_start(now)

    def warn_from_the_start(self, now: float) -> None:
        self._warn_at = self._thresholds.next_above(0, self.amount)
        used = self._used - self.reserved
        if used >= self._warn_at:
            self._warn(used, now)

    def _warn(self, used: int, now: float) -> None:
        self._warn_at = self._thresholds.pass_up_to(used, beginning=self._warn_at, meter=self, now=now)

    def _roll(self, now: float) -> None:
        start, end = self._window.bounds(now)
        self._used = 0
        self._warn_at = self._thresholds.next_above(0, self.amount)
        self.starts_at = float(start)
        self.ends_at = float(end)
        self._describe_policy()
