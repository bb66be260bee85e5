"""What a limit's amount is counted over: a calendar window in a time zone, or a plain duration.

Calendar windows cut the time line into pieces that touch and never overlap, in every zone and across every change of
the clocks, and the cut depends on nothing but the instant asked about, so that a restart finds the same windows:

- day, week and month begin at the first instant at which the zone's wall clock shows midnight of their first day. A
  day is therefore 23 or 25 hours long where clocks change, and begins at 01:00 where midnight is skipped. When clocks
  go back across midnight, the stretch shown twice belongs to the day that had already begun.
- hour and minute follow the wall clock too (so an hour begins at :30 UTC in a zone 30 minutes off), but an hour that
  the wall clock shows twice is two windows. A change of the clocks that falls inside a window ends it.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import floor
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

CalendarUnit: TypeAlias = Literal["minute", "hour", "day", "week", "month"]

_CLOCK_SECONDS: Final[dict[str, int]] = {"minute": 60, "hour": 3600}
_DURATION_UNITS: Final = ((86_400, "d", "day"), (3600, "h", "hour"), (60, "m", "minute"), (1, "s", "second"))


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """A minute, hour, day, ISO week (Monday first) or month of the clock and calendar in an IANA time zone."""

    unit: CalendarUnit
    zone: str = "UTC"

    def bounds(self, now: float) -> tuple[int, int]:
        """Start (included) and end (excluded) of the window that contains `now`, all in Unix seconds."""
        zone = time_zone(self.zone)
        if self.unit in _CLOCK_SECONDS:
            return _clock_bounds(_CLOCK_SECONDS[self.unit], zone, floor(now))
        return _date_bounds(self.unit, zone, now)

    @property
    def name(self) -> str:
        """The window without its zone: ``day``."""
        return self.unit

    @property
    def words(self) -> str:
        """What follows "per" in a sentence."""
        return self.unit

    def __str__(self) -> str:
        return self.unit if self.zone == "UTC" else f"{self.unit}@{self.zone}"


@dataclass(frozen=True, slots=True)
class Duration:
    """A whole number of seconds, aligned to nothing: the amount flows back evenly over it."""

    seconds: int

    @property
    def name(self) -> str:
        """The shortest spelling: ``10m``."""
        size, letter, _ = self._largest_unit()
        return f"{self.seconds // size}{letter}"

    @property
    def words(self) -> str:
        """What follows "per" in a sentence: ``10 minutes``, ``second``."""
        size, _, noun = self._largest_unit()
        count = self.seconds // size
        return noun if count == 1 else f"{count} {noun}s"

    def _largest_unit(self) -> tuple[int, str, str]:
        return next(unit for unit in _DURATION_UNITS if self.seconds % unit[0] == 0)

    def __str__(self) -> str:
        return self.name


Window: TypeAlias = CalendarWindow | Duration


@lru_cache(maxsize=1024)
def time_zone(name: str) -> ZoneInfo:
    """The zone of that exact IANA name. Raises what `ZoneInfo` raises when there is none."""
    return ZoneInfo(name)


def _clock_bounds(length: int, zone: ZoneInfo, now: int) -> tuple[int, int]:
    offset = _offset(zone, now)
    start = now - (now + offset) % length
    end = start + length
    if _offset(zone, start) != offset:
        start = _first_with_offset_of(zone, start, now)
    if _offset(zone, end) != offset:
        end = _first_with_offset_of(zone, now, end)
    return start, end


def _date_bounds(unit: CalendarUnit, zone: ZoneInfo, now: float) -> tuple[int, int]:
    first = _first_day(unit, datetime.fromtimestamp(now, zone).date())
    following = _following_day(unit, first)
    start, end = _midnight(zone, first), _midnight(zone, following)
    while end <= now:  # the wall clock shows the evening before for the second time
        following = _following_day(unit, following)
        start, end = end, _midnight(zone, following)
    return start, end


def _first_day(unit: CalendarUnit, day: date) -> date:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _following_day(unit: CalendarUnit, first: date) -> date:
    if unit == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if unit == "week" else 1)


def _midnight(zone: ZoneInfo, day: date) -> int:
    """The first instant at which the wall clock shows 00:00 of `day` or later."""
    wall = datetime(day.year, day.month, day.day)
    # fold=0, the default, is the first of two equal times (PEP 495).
    instant = int(wall.replace(tzinfo=zone).timestamp())
    if datetime.fromtimestamp(instant, zone).replace(tzinfo=None) == wall:
        return instant
    # Midnight was skipped. Read with the offset after the change it lies before the change, and the other way round.
    before = int(wall.replace(tzinfo=zone, fold=1).timestamp())
    return _first_with_offset_of(zone, before, instant)


def _first_with_offset_of(zone: ZoneInfo, low: int, high: int) -> int:
    """The instant of the change of offset between `low` (old offset) and `high` (new offset)."""
    new = _offset(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == new:
            high = middle
        else:
            low = middle
    return high


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
