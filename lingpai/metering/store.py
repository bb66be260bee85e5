"""Questions to the usage tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    func,
    literal_column,
    select,
)

from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.tables import usage_records, usage_rollups
from lingpai.storage.database import Database

Subject = tuple[Literal["key", "user"], str]
GroupColumn = Literal["key_id", "user_id", "model", "task", "bucket_start"]

TOTALS: Final = ("requests", "errors", "refused", "prompt_tokens", "completion_tokens")

# Spelled out rather than bound: SQLite uses a partial index only when it sees the index's own condition.
_IS_CHARGED: Final[ColumnElement[bool]] = usage_records.c.charged > literal_column("0")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which roll-ups to add up: from `since` until before `until` (bucket starts), and only of these if not None."""

    since: int
    until: int
    key_id: str | None = None
    user_id: str | None = None
    model: str | None = None


class SqlUsageStore:
    """Reads usage from the database. All methods block; none waits for the ingester.

    Also the `UsageHistory` that quotas ask for what was charged before the process started. Only charged requests
    count there, by the time they started at.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(self, wanted: UsageFilter, by: Sequence[GroupColumn]) -> Iterator[Row[Any]]:
        """One row for each group, with the columns `by` and then `TOTALS`; no row when nothing matches."""
        groups = [usage_rollups.c[name] for name in by]
        sums = [func.sum(usage_rollups.c[name]).label(name) for name in TOTALS]
        statement = select(*groups, *sums).where(*_conditions(wanted)).group_by(*groups)
        if not groups:
            statement = statement.having(func.count() > 0)
        with self._database.read() as connection:
            yield from connection.execute(statement)

    def requests_since(self, subject: Subject, since: float) -> int:
        """How many requests were charged to `subject` for calls that started at `since` (unix seconds) or later.

        Whole buckets come from the roll-ups, so a month costs no more than an hour; the piece of a bucket before
        them is counted call by call.
        """
        boundary = bucket_start(since)
        if boundary < since:
            boundary += BUCKET_SECONDS
        kind, id_ = subject
        values = {**_subject_values(id_, since), "boundary": boundary, "before": float(boundary)}
        with self._database.read() as connection:
            count: int = connection.execute(_REQUESTS_SINCE[kind], values).scalar_one()
        return count

    def request_times_since(self, subject: Subject, since: float) -> list[float]:
        """When the charged calls of `subject` started, from `since` (unix seconds) on, ascending.

        A call that was charged more than one request is in the list as many times.
        """
        kind, id_ = subject
        with self._database.read() as connection:
            rows = connection.execute(_TIMES_SINCE[kind], _subject_values(id_, since)).all()
        return [started_at for started_at, charged in rows for _ in range(charged)]


def _subject_values(id_: str, since: float) -> dict[str, Any]:
    return {"id": id_, "since": float(since), "since_bucket": bucket_start(since)}


def _charged_calls(kind: str) -> list[ColumnElement[bool]]:
    """Conditions that find the records through their one index, which begins with the key."""
    records, id_ = usage_records.c, bindparam("id", type_=String)
    conditions = [records.started_at >= bindparam("since", type_=Float), _IS_CHARGED]
    if kind == "key":
        return [records.key_id == id_, *conditions]
    keys_of_user = select(usage_rollups.c.key_id).where(
        usage_rollups.c.user_id == id_,
        usage_rollups.c.bucket_start >= bindparam("since_bucket", type_=Integer),
    )
    return [records.key_id.in_(keys_of_user), records.user_id == id_, *conditions]


def _requests_since(kind: str) -> Select[Any]:
    rollups, records = usage_rollups.c, usage_records.c
    whole = select(func.coalesce(func.sum(rollups.charged), 0)).where(
        (rollups.key_id if kind == "key" else rollups.user_id) == bindparam("id", type_=String),
        rollups.bucket_start >= bindparam("boundary", type_=Integer),
    )
    piece = select(func.coalesce(func.sum(records.charged), 0)).where(
        *_charged_calls(kind), records.started_at < bindparam("before", type_=Float)
    )
    return select(whole.scalar_subquery() + piece.scalar_subquery())


def _times_since(kind: str) -> Select[Any]:
    records = usage_records.c
    return (
        select(records.started_at, records.charged).where(*_charged_calls(kind)).order_by(records.started_at)
    )


# Put together once: building a statement takes several times as long as running it, and a key's first use waits.
_REQUESTS_SINCE: Final = {kind: _requests_since(kind) for kind in ("key", "user")}
_TIMES_SINCE: Final = {kind: _times_since(kind) for kind in ("key", "user")}


def _conditions(wanted: UsageFilter) -> list[ColumnElement[bool]]:
    columns = usage_rollups.c
    conditions = [columns.bucket_start >= wanted.since, columns.bucket_start < wanted.until]
    for name in ("key_id", "user_id", "model"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(columns[name] == value)
    return conditions
