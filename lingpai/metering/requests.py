"""Questions to the records: the calls one by one, newest first, or all of them for an export.

Records are found by `id`, the order in which they arrived. A page or an export goes through them in stretches, each in a
transaction of its own, so that nobody who reads slowly keeps the database from tidying up. `usage_marks` and the roll-ups
say where the next stretch with something in it is: a caller with few calls among many millions does not wait for a walk
through all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, select

from lingpai.ids import request_made_at
from lingpai.metering.interfaces import Visible
from lingpai.metering.records import bucket_start
from lingpai.metering.store import SUBJECT_COLUMNS, is_visible
from lingpai.metering.tables import usage_marks, usage_records, usage_rollups
from lingpai.storage.database import Database

Record = Row[Any]
"""A row of usage_records."""

_STRETCH: Final = 20_000
_MOST_STRETCHES: Final = 25
_CHUNK: Final = 500
_CLOCK_SLACK_S: Final = 60
_USUAL_LIFE_S: Final = 120
_LONGEST_LIFE_S: Final = 6 * 3600
"""How long after its id was made a call can begin (`started_at`): its body has to come first, and it may have to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which calls are wanted: those that started from `since` until before `until` (unix seconds), and only with these
    values where they are not None. `status` is a range, both ends included; `visible` hides what the caller may not see.
    """

    since: float | None = None
    until: float | None = None
    key_id: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    status: tuple[int, int] | None = None
    end_reason: str | None = None
    endpoint: str | None = None
    request_id: str | None = None
    visible: Visible | None = None


class RecordPage(NamedTuple):
    """Some records, newest first, and the id before which the next page begins; None when there is none."""

    records: list[Record]
    next_before: int | None


class SqlRequestStore:
    """Reads single calls from the database. All methods block; none waits for the ingester."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: RequestFilter, *, limit: int, before: int | None = None) -> RecordPage:
        """Up to `limit` records with an id below `before`, newest first.

        A page can have fewer, or none, and still a next one: after half a million records looked at, an answer is
        due. One request is looked for in the hours after its id was made.
        """
        found: list[Record] = []
        wanted = _within_life(wanted)
        with self._database.read() as connection:
            ranges = _id_ranges(connection, wanted)
            for _ in range(_MOST_STRETCHES):
                stretch = _stretch_below(ranges, before)
                if stretch is None:
                    return RecordPage(found, None)
                before, end = stretch
                found += _records_between(connection, wanted, before, end, most=limit + 1 - len(found))
                if len(found) > limit:
                    return RecordPage(found[:limit], found[limit - 1].id)
        return RecordPage(found, before)

    def find(self, request_id: str, *, visible: Visible | None = None) -> Record | None:
        """The call with this id, if it is not hidden.

        Looks at the records of the hours after the id was made, those of the first minutes before the others; for an
        id that tells no time, at the newest half a million.
        """
        wanted = RequestFilter(request_id=request_id, visible=visible)
        made_at = request_made_at(request_id)
        if made_at is None:
            return next(iter(self.page(wanted, limit=1).records), None)
        soon = replace(wanted, until=made_at + _USUAL_LIFE_S)
        return self._first(soon) or self._first(wanted)

    def _first(self, wanted: RequestFilter) -> Record | None:
        before: int | None = None
        while True:
            records, before = self.page(wanted, limit=1, before=before)
            if records or before is None:
                return records[0] if records else None

    def all(self, wanted: RequestFilter) -> Iterator[list[Record]]:
        """Every record that is there now, oldest first, some hundreds at a time. No transaction is open in between."""
        with self._database.read() as connection:
            last = connection.scalar(select(func.max(usage_records.c.id))) or 0
            ranges = _id_ranges(connection, wanted)
        for first, end in ranges:
            start = first
            while start < min(end, last + 1):
                stop = min(end, last + 1, start + _STRETCH)
                with self._database.read() as connection:
                    chunk = _records_from(connection, wanted, start, stop)
                start = chunk[-1].id + 1 if len(chunk) == _CHUNK else stop
                if chunk:
                    yield chunk


def _within_life(wanted: RequestFilter) -> RequestFilter:
    """With one request wanted, only the time in which it can have begun: no index leads from its id to its record.

    Ids of older versions tell no time.
    """
    made_at = None if wanted.request_id is None else request_made_at(wanted.request_id)
    if made_at is None:
        return wanted
    earliest, latest = made_at - _CLOCK_SLACK_S, made_at + _LONGEST_LIFE_S
    return replace(
        wanted,
        since=earliest if wanted.since is None else max(earliest, wanted.since),
        until=latest if wanted.until is None else min(latest, wanted.until),
    )


def _id_ranges(connection: Connection, wanted: RequestFilter) -> list[tuple[int, int]]:
    """Where wanted records can be: ranges of ids, ends excluded, ascending and apart from each other.

    Asked once per page or export: with a year's marks, and a look at the roll-ups for each, it takes some
    hundredths of a second.
    """
    marks = usage_marks.c
    conditions = _in_buckets(wanted)
    if not conditions:
        first, last = connection.execute(select(func.min(marks.first_id), func.max(marks.last_id))).one()
        return [] if first is None else [(first, last + 1)]
    ranges: list[tuple[int, int]] = []
    query = select(marks.first_id, marks.last_id).where(*conditions).order_by(marks.first_id)
    for first, last in connection.execute(query):
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], last + 1)
        else:
            ranges.append((first, last + 1))
    return ranges


def _stretch_below(ranges: list[tuple[int, int]], before: int | None) -> tuple[int, int] | None:
    """The last stretch of `ranges` below `before`, its end excluded; None when there is none. Drops ranges above it."""
    while ranges:
        first, end = ranges[-1]
        end = end if before is None else min(end, before)
        if first < end:
            return max(first, end - _STRETCH), end
        ranges.pop()
    return None


def _in_buckets(wanted: RequestFilter) -> list[ColumnElement[bool]]:
    """Conditions on the marks: buckets of the time, and with something of the key, client, user, project or model in them."""
    marks, rollups = usage_marks.c, usage_rollups.c
    conditions = []
    if wanted.since is not None:
        conditions.append(marks.bucket_start >= bucket_start(wanted.since))
    if wanted.until is not None:
        conditions.append(marks.bucket_start < wanted.until)
    subjects = [
        rollups[name] == value for name in SUBJECT_COLUMNS if (value := getattr(wanted, name)) is not None
    ]
    if wanted.visible is not None:
        subjects.append(is_visible(rollups, wanted.visible))
    if subjects:
        conditions.append(exists().where(rollups.bucket_start == marks.bucket_start, *subjects))
    return conditions


def _records_between(
    connection: Connection, wanted: RequestFilter, start: int, end: int, *, most: int
) -> list[Record]:
    query = _wanted_in(wanted, start, end).order_by(usage_records.c.id.desc())
    return list(connection.execute(query.limit(most)))


def _records_from(connection: Connection, wanted: RequestFilter, start: int, end: int) -> list[Record]:
    query = _wanted_in(wanted, start, end).order_by(usage_records.c.id)
    return list(connection.execute(query.limit(_CHUNK)))


def _wanted_in(wanted: RequestFilter, start: int, end: int) -> Select[Any]:
    columns = usage_records.c
    conditions = [columns.id >= start, columns.id < end]
    conditions += [
        columns[name] == value
        for name in (*SUBJECT_COLUMNS, "end_reason", "endpoint", "request_id")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.visible is not None:
        conditions.append(is_visible(columns, wanted.visible))
    if wanted.since is not None:
        conditions.append(columns.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.started_at < wanted.until)
    if wanted.status is not None:
        conditions.append(columns.status.between(*wanted.status))
    return select(usage_records).where(*conditions)
