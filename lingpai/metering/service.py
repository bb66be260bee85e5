"""The usage report."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from math import ceil
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from lingpai.errors import LingpaiError, did_you_mean
from lingpai.metering.interfaces import Visible
from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.store import GroupColumn, SqlUsageStore, UsageFilter, joined_sum
from lingpai.metering.tables import COUNTS
from lingpai.web.periods import day_of, hour_of, parse_moment, parse_zone

Group = Literal["key", "client", "user", "project", "model", "task", "day", "hour"]

MAX_ROWS: Final = 10_000
"""The most rows of one report. An export has no such bound."""

_COLUMNS: Final[dict[Group, GroupColumn | None]] = {
    "key": "key_id",
    "client": "client_id",
    "user": "user_id",
    "project": "project_id",
    "model": "model",
    "task": "task",
    "day": None,
    "hour": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuestion:
    """What a report is asked for, as the caller writes it."""

    since: str = "7d"
    until: str | None = None
    by: str = ""
    tz: str = "UTC"
    key_id: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    visible: Visible | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One line of a report: the values of the groups in the order of `Report.by`, and what was used.

    `costs` and `charged_costs` are in 10^-9 of the currency and have the currencies in which there is anything.
    """

    group: tuple[str, ...]
    requests: int = 0
    errors: int = 0
    refused: int = 0
    charged: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    charged_tokens: int = 0
    costs: dict[str, int] = field(default_factory=dict)
    charged_costs: dict[str, int] = field(default_factory=dict)


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

    def __init__(
        self, store: SqlUsageStore, *, clock: Callable[[], float] = time.time, max_rows: int = MAX_ROWS
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_rows = max_rows

    def answer(self, question: UsageQuestion) -> Report:
        """The report. Blocks.

        Rows are in the order of time if grouped by day or hour, then the busiest first. Without groups there is
        exactly one row. Raises LingpaiError (invalid_request) for a question that makes no sense, and for one with
        more rows than a report may have: nothing is left out in silence.
        """
        by, (since, until), rows = self.rows(question)
        found = list(islice(rows, self._max_rows + 1))
        if len(found) > self._max_rows:
            raise LingpaiError(
                "invalid_request",
                f"This report has more than {self._max_rows:,} rows. Ask for a shorter period or fewer groups, or take"
                " `GET /api/v1/usage/export`, which has no such bound.",
                param="by",
            )
        if not by and not found:
            found = [UsageRow(())]
        return Report(found, since, until, question.tz, by)

    def rows(self, question: UsageQuestion) -> tuple[tuple[Group, ...], tuple[int, int], Iterator[UsageRow]]:
        """The groups, the period, and the rows of `answer` one by one, however many, never all of them in memory.

        The question is checked at once; the iterator blocks.
        """
        zone = parse_zone(question.tz)
        by = parse_groups(question.by)
        since, until = self._period(question, zone)
        wanted = UsageFilter(
            since=since,
            until=until,
            key_id=question.key_id,
            client_id=question.client_id,
            user_id=question.user_id,
            project_id=question.project_id,
            model=question.model,
            visible=question.visible,
        )
        return by, (since, until), self._add_up(wanted, by, zone)

    def _period(self, question: UsageQuestion, zone: ZoneInfo) -> tuple[int, int]:
        now = self._clock()
        since = parse_moment(question.since, now=now, zone=zone, param="since")
        if question.until is None:
            until: float = bucket_start(now) + BUCKET_SECONDS  # with what is answered at this very moment
        else:
            until = parse_moment(question.until, now=now, zone=zone, param="until")
        if until < since:
            param, end = ("since", "in the future") if question.until is None else ("until", "before `since`")
            raise LingpaiError("invalid_request", f"`{param}` is {end}.", param=param)
        return bucket_start(since), ceil(until / BUCKET_SECONDS) * BUCKET_SECONDS

    def _add_up(self, wanted: UsageFilter, by: Sequence[Group], zone: ZoneInfo) -> Iterator[UsageRow]:
        columns = [column for group in by if (column := _COLUMNS[group]) is not None]
        for times, since, until in self._stretches(wanted, by, zone):
            part = replace(wanted, since=since, until=until)
            for found in self._store.totals(part, columns):
                values = iter(found)
                group = tuple(times[each] if each in times else next(values) for each in by)
                yield _row(group, found)

    def _stretches(
        self, wanted: UsageFilter, by: Sequence[Group], zone: ZoneInfo
    ) -> Iterator[tuple[dict[Group, str], int, int]]:
        """The days or hours in which anything was used, with the first bucket and the end of each."""
        if "day" not in by and "hour" not in by:
            yield {}, wanted.since, wanted.until
            return

        def name_of(bucket: int) -> tuple[str, str]:
            return day_of(bucket, zone), hour_of(bucket, zone) if "hour" in by else ""

        for (day, hour), group in groupby(self._store.buckets(wanted), name_of):
            buckets = list(group)
            yield {"day": day, "hour": hour}, buckets[0], buckets[-1] + BUCKET_SECONDS


def _row(group: tuple[str, ...], found: Any) -> UsageRow:
    counts = {name: getattr(found, name) for name in COUNTS}

    def money(kind: str) -> dict[str, int]:
        amounts = {currency: joined_sum(found, f"{kind}_{currency.lower()}") for currency in ("USD", "CNY")}
        return {currency: amount for currency, amount in amounts.items() if amount}

    return UsageRow(group, **counts, costs=money("cost"), charged_costs=money("charged"))


def parse_groups(text: str) -> tuple[Group, ...]:
    """``key,model`` as groups, each once. Raises LingpaiError (invalid_request, param ``by``)."""
    names = dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        near = did_you_mean(unknown[0][:100], _COLUMNS)
        message = f"Usage cannot be grouped by that. Choose from {', '.join(_COLUMNS)}.{near}"
        raise LingpaiError("invalid_request", message, param="by")
    return tuple(group for name in names for group in _COLUMNS if group == name)
