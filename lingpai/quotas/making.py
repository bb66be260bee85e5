"""From limits to meters: which apply, which kind of meter each needs, and what headers call them."""

from collections.abc import Iterable

from lingpai.quotas.amounts import Unit
from lingpai.quotas.calendar_meter import CalendarMeter
from lingpai.quotas.concurrency_meter import ConcurrencyMeter
from lingpai.quotas.grammar import Limit, parse_limit
from lingpai.quotas.history import Snapshot
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import Meter, header_name
from lingpai.quotas.rate_meter import RateMeter
from lingpai.quotas.thresholds import Thresholds
from lingpai.quotas.weighing_calendar_meter import WeighingCalendarMeter
from lingpai.quotas.weighing_rate_meter import WeighingRateMeter
from lingpai.quotas.windows import CalendarWindow, Window


def strictest(limits: Iterable[str]) -> list[Limit]:
    """The parsed limits, with the smallest amount where a unit's window occurs twice. ValueError for a bad one."""
    by_window: dict[tuple[Unit, Window | None], Limit] = {}
    for limit in map(parse_limit, limits):
        known = by_window.setdefault((limit.unit, limit.window), limit)
        if (limit.amount, limit.wait_s) < (known.amount, known.wait_s):
            by_window[limit.unit, limit.window] = limit
    return list(by_window.values())


def make_meter(
    limit: Limit,
    subject: Subject,
    snapshot: Snapshot | None,
    *,
    label: str,
    now: float,
    thresholds: Thresholds,
) -> Meter:
    """The meter for `limit`, going on where `snapshot` ends; only concurrent requests need none."""
    window = limit.window
    if window is None:
        return ConcurrencyMeter(limit, subject, label=label, now=now)
    if snapshot is None:
        raise ValueError(f"{limit} needs a snapshot of what is used")
    now = snapshot.read_at
    if isinstance(window, CalendarWindow):
        count = snapshot.counts[limit.unit, window]
        calendar = CalendarMeter if limit.unit == "requests" else WeighingCalendarMeter
        return calendar(limit, window, subject, count, label=label, now=now, thresholds=thresholds)
    backlog = snapshot.backlogs[limit.unit, window]
    rate = RateMeter if limit.unit == "requests" else WeighingRateMeter
    return rate(limit, window, subject, backlog, label=label, now=now)


def revive(meter: Meter, limit: Limit, *, label: str, now: float) -> Meter:
    """`meter`, which is alive, with the amount of `limit` from now on; what is used stays used."""
    meter.label = label
    meter.touched = max(meter.touched, now)
    if meter.limit != limit:
        meter.change_limit(limit, now)
    return meter


def name_apart(meters: Iterable[Meter]) -> None:
    """Header names such as ``key-day``; the second day, in another zone, is ``key-day@Europe/Berlin``."""
    names: set[str] = set()
    for meter in meters:
        name = header_name(meter.subject, meter.limit)
        if name in names:
            name = header_name(meter.subject, meter.limit, with_zone=True)
        names.add(name)
        if name != meter.name:
            meter.rename(name)
