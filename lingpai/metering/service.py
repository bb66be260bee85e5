"""The usage report."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from lingpai.errors import LingpaiError, did_you_mean
from lingpai.metering.periods import day_of, hour_of, parse_moment, parse_zone
from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.store import GroupColumn, SqlUsageStore, UsageFilter

Group = Literal["key", "user", "model", "task", "day", "hour"]

_COLUMNS: Final[dict[Group, GroupColumn]] = {
    "key": "key_id",
    "user": "user_id",
    "model": "model",
    "task": "task",
    "day": "bucket_start",
    "hour": "bucket_start",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuestion:
    """What a report is asked for, as the caller writes it."""

    since: str = "7d"
    until: str | None = None
    by: str = ""
    tz: str = "UTC"
    key_id: str | None = None
    user_id: str | None = None
    model: str | None = None


@dataclass(slots=True)
class UsageRow:
    """One line of a report: the values of the groups in the order of `Report.by`, and what was used."""

    group: tuple[str, ...]
    requests: int = 0
    errors: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: `rows` and the period that it really covers (unix seconds, `until` excluded).

    Usage is known per 15 minutes, so `since` is the start of the bucket that the question's falls into, and `until`
    the end of its bucket.
    """

    rows: list[UsageRow]
    since: int
    until: int
    tz: str
    by: tuple[Group, ...]


class UsageReport:
    """Adds up usage from the 15-minute roll-ups, in the days and hours of any time zone."""

    def __init__(self, store: SqlUsageStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def answer(self, question: UsageQuestion) -> Report:
        """The report. Blocks. Raises LingpaiError (invalid_request) for a question that makes no sense.

        Rows are in the order of time if grouped by day or hour, then the busiest first. Without groups there is
        exactly one row.
        """
        zone = parse_zone(question.tz)
        by = parse_groups(question.by)
        since, until = self._period(question, zone)
        wanted = UsageFilter(
            since=since, until=until, key_id=question.key_id, user_id=question.user_id, model=question.model
        )
        rows = self._add_up(wanted, by, zone)
        if not by and not rows:
            rows = [UsageRow(())]
        return Report(_in_order(rows, by), since, until, question.tz, by)

    def _period(self, question: UsageQuestion, zone: ZoneInfo) -> tuple[int, int]:
        now = self._clock()
        since = parse_moment(question.since, now=now, zone=zone, param="since")
        until = now
        if question.until is not None:
            until = parse_moment(question.until, now=now, zone=zone, param="until")
        if until < since:
            param, end = ("since", "in the future") if question.until is None else ("until", "before `since`")
            raise LingpaiError("invalid_request", f"`{param}` is {end}.", param=param)
        return bucket_start(since), -(-int(until) // BUCKET_SECONDS) * BUCKET_SECONDS

    def _add_up(self, wanted: UsageFilter, by: tuple[Group, ...], zone: ZoneInfo) -> list[UsageRow]:
        columns = tuple(dict.fromkeys(_COLUMNS[group] for group in by))
        read_group = _group_reader(by, columns, zone)
        rows: dict[tuple[str, ...], UsageRow] = {}
        for found in self._store.totals(wanted, columns):
            group = read_group(found)
            row = rows.get(group)
            if row is None:
                row = rows[group] = UsageRow(group)
            row.requests += found.requests
            row.errors += found.errors
            row.refused += found.refused
            row.prompt_tokens += found.prompt_tokens
            row.completion_tokens += found.completion_tokens
        return list(rows.values())


def parse_groups(text: str) -> tuple[Group, ...]:
    """``key,model`` as groups, each once. Raises LingpaiError (invalid_request, param ``by``)."""
    names = dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        near = did_you_mean(unknown[0][:100], _COLUMNS)
        message = f"Usage cannot be grouped by that. Choose from {', '.join(_COLUMNS)}.{near}"
        raise LingpaiError("invalid_request", message, param="by")
    return tuple(group for name in names for group in _COLUMNS if group == name)


def _group_reader(
    by: tuple[Group, ...], columns: tuple[GroupColumn, ...], zone: ZoneInfo
) -> Callable[[Any], tuple[str, ...]]:
    """A function that takes a row of the store to the values of `by`."""

    @cache  # there are many rows to a bucket
    def day(bucket: int) -> str:
        return day_of(bucket, zone)

    @cache
    def hour(bucket: int) -> str:
        return hour_of(bucket, zone)

    def values(row: Any) -> Iterator[str]:
        for group in by:
            value = row[columns.index(_COLUMNS[group])]
            yield day(value) if group == "day" else hour(value) if group == "hour" else value

    return lambda row: tuple(values(row))


def _in_order(rows: list[UsageRow], by: tuple[Group, ...]) -> list[UsageRow]:
    times = [index for index, group in enumerate(by) if group in ("day", "hour")]

    def place(row: UsageRow) -> tuple[list[datetime], int, tuple[str, ...]]:
        # compared as moments: the first of two hours with one name may have the larger offset
        moments = [datetime.fromisoformat(row.group[index]) for index in times]
        return (
            [each if each.tzinfo else each.replace(tzinfo=UTC) for each in moments],
            -row.requests,
            row.group,
        )

    return sorted(rows, key=place)
