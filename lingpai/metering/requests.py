"""Questions to the records: the calls one by one, newest first, or all of them for an export.

Records are found by `id`, the order in which they arrived. A page or an export goes through them in stretches, each in a
transaction of its own, so that nobody who reads slowly keeps the database from tidying up. `usage_marks` and the roll-ups
say where the next stretch with something in it is: a caller with few calls among many millions does not wait for a walk
through all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, case, exists, func, select

from lingpai.metering.records import bucket_start
from lingpai.metering.store import SUBJECT_COLUMNS
from lingpai.metering.tables import usage_marks, usage_records, usage_rollups
from lingpai.storage.database import Database

Record = Row[Any]
"""A row of usage_records."""

_STRETCH: Final = 20_000
_MOST_STRETCHES: Final = 25
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which calls are wanted: those that started from `since` until before `until` (unix seconds), and only with these
    values where they are not None. `status` is a range, both ends included.
    """

    since: float | None = None
    until: float | None = None
    key_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    status: tuple[int, int] | None = None
    end_reason: str | None = None
    endpoint: str | None = None
    request_id: str | None = None


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
        due. Looking for one request goes on to the end.
        """
        found: list[Record] = []
        most = _MOST_STRETCHES if wanted.request_id is None else 1_000_000
        with self._database.read() as connection:
            for _ in range(most):
                end = _end_of_stretch(connection, wanted, before)
                if end is None:
                    return RecordPage(found, None)
                before = end - _STRETCH
                found += _records_between(connection, wanted, before, end, most=limit + 1 - len(found))
                if len(found) > limit:
                    return RecordPage(found[:limit], found[limit - 1].id)
        return RecordPage(found, before)

    def find(self, request_id: str, *, user_id: str | None = None) -> Record | None:
        """The call with this id, only that user's with `user_id`. Looks through all records: seconds, if there are many."""
        records = self.page(RequestFilter(request_id=request_id, user_id=user_id), limit=1).records
        return records[0] if records else None

    def all(self, wanted: RequestFilter) -> Iterator[list[Record]]:
        """Every record that is there now, oldest first, some hundreds at a time. No transaction is open in between."""
        with self._database.read() as connection:
            last = connection.scalar(select(func.max(usage_records.c.id))) or 0
        after = 0
        while after < last:
            with self._database.read() as connection:
                start = _start_of_stretch(connection, wanted, after)
                if start is None or start > last:
                    return
                end = min(last, start + _STRETCH)
                chunk = _records_from(connection, wanted, start, end)
            after = chunk[-1].id if len(chunk) == _CHUNK else end
            if chunk:
                yield chunk


def _end_of_stretch(connection: Connection, wanted: RequestFilter, before: int | None) -> int | None:
    """One more than the largest id below `before` that a wanted record can have; None when there can be none."""
    marks = usage_marks.c
    query = select(func.max(marks.last_id))
    if before is not None:
        last = case((marks.last_id < before, marks.last_id), else_=before - 1)
        query = select(func.max(last)).where(marks.first_id < before)
    found = connection.scalar(query.where(*_in_buckets(wanted)))
    return None if found is None else found + 1


def _start_of_stretch(connection: Connection, wanted: RequestFilter, after: int) -> int | None:
    """The smallest id over `after` that a wanted record can have; None when there can be none."""
    marks = usage_marks.c
    first = case((marks.first_id > after, marks.first_id), else_=after + 1)
    query = select(func.min(first)).where(marks.last_id > after, *_in_buckets(wanted))
    found: int | None = connection.scalar(query)
    return found


def _in_buckets(wanted: RequestFilter) -> list[ColumnElement[bool]]:
    """Conditions on the marks: buckets of the time, and with something of the key, user, project or model in them."""
    marks, rollups = usage_marks.c, usage_rollups.c
    conditions = []
    if wanted.since is not None:
        conditions.append(marks.bucket_start >= bucket_start(wanted.since))
    if wanted.until is not None:
        conditions.append(marks.bucket_start < wanted.until)
    subjects = [
        rollups[name] == value for name in SUBJECT_COLUMNS if (value := getattr(wanted, name)) is not None
    ]
    if subjects:
        conditions.append(exists().where(rollups.bucket_start == marks.bucket_start, *subjects))
    return conditions


def _records_between(
    connection: Connection, wanted: RequestFilter, start: int, end: int, *, most: int
) -> list[Record]:
    columns = usage_records.c
    query = select(usage_records).where(columns.id >= start, columns.id < end, *_conditions(wanted))
    return list(connection.execute(query.order_by(columns.id.desc()).limit(most)))


def _records_from(connection: Connection, wanted: RequestFilter, start: int, end: int) -> list[Record]:
    columns = usage_records.c
    query = select(usage_records).where(columns.id >= start, columns.id <= end, *_conditions(wanted))
    return list(connection.execute(query.order_by(columns.id).limit(_CHUNK)))


def _conditions(wanted: RequestFilter) -> list[ColumnElement[bool]]:
    columns = usage_records.c
    conditions = [
        columns[name] == value
        for name in (*SUBJECT_COLUMNS, "end_reason", "endpoint", "request_id")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.since is not None:
        conditions.append(columns.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.started_at < wanted.until)
    if wanted.status is not None:
        conditions.append(columns.status.between(*wanted.status))
    return conditions
