"""Repair: roll-ups and marks worked out anew from the records, compared with what is there, and put right.

Safe while the server runs. The ingester adds records, roll-ups and marks in one transaction, so in any one state of the
database they must agree: each bucket is compared in a reading transaction, which holds nobody up, and only one that
differs is worked out once more and replaced in a writing one.

Buckets of which retention has deleted records are left alone: their roll-ups are all there is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
)

from lingpai.metering.money import NANO
from lingpai.metering.records import BUCKET_SECONDS, MAX_NANO, bucket_start
from lingpai.metering.store import COUNTS, MONEY
from lingpai.metering.tables import usage_marks, usage_records, usage_retention, usage_rollups
from lingpai.storage.database import Database

_STRETCH: Final = 50_000
_GROUP: Final = ("key_id", "user_id", "project_id", "model", "task")

Sums = dict[str, int]
Groups = dict[tuple[str, ...], Sums]
Marks = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BucketRepair:
    """A quarter of an hour whose roll-ups were wrong: how many groups, and the sums over all of them that changed."""

    bucket_start: int
    groups: int
    before: Sums
    after: Sums


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild looked at (buckets from `since`, unix seconds) and what it had to change."""

    since: int
    buckets: int
    repaired: tuple[BucketRepair, ...]
    marks_repaired: int


class Rebuild:
    """One repair of the roll-ups and marks in `database`, which must have the newest tables. Blocks."""

    def __init__(
        self, database: Database, *, on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        """`on_progress` hears how many buckets are done, of how many."""
        self._database = database
        self._on_progress = on_progress

    def run(self, since: float = 0.0) -> RebuildReport:
        """Compare and repair every bucket from the one of `since` (unix seconds) on, and all marks."""
        with self._database.read() as connection:
            start = max(_kept_since(connection), bucket_start(since))
        marks_repaired = self._repair_marks()
        buckets = self._buckets(start)
        repaired = []
        for done, bucket in enumerate(buckets):
            self._on_progress(done, len(buckets))
            repair = self._repair_bucket(bucket)
            if repair is not None:
                repaired.append(repair)
        self._on_progress(len(buckets), len(buckets))
        return RebuildReport(start, len(buckets), tuple(repaired), marks_repaired)

    # Marks

    def _repair_marks(self) -> int:
        right: Marks = {}
        last = 0
        while True:
            with self._database.read() as connection:
                end = _merge_marks(connection, right, last)
            if end is None:
                break
            last = end
        # What arrived since then is read while nothing more can arrive.
        with self._database.write() as connection:
            while (end := _merge_marks(connection, right, last)) is not None:
                last = end
            kept_since = _kept_since(connection)
            right = {bucket: mark for bucket, mark in right.items() if bucket >= kept_since}
            return _replace_marks(connection, right, kept_since)

    # Roll-ups

    def _buckets(self, start: int) -> list[int]:
        with self._database.read() as connection:
            found: set[int] = set()
            for column in (usage_marks.c.bucket_start, usage_rollups.c.bucket_start):
                found.update(connection.scalars(select(column).where(column >= start).distinct()))
        return sorted(found)

    def _repair_bucket(self, bucket: int) -> BucketRepair | None:
        with self._database.read() as connection:
            if _stored(connection, bucket) == _worked_out(connection, bucket):
                return None
        with self._database.write() as connection:
            if bucket < _kept_since(connection):
                return None  # retention came first, and what is left of the records is not all
            before, after = _stored(connection, bucket), _worked_out(connection, bucket)
            _replace(connection, bucket, after)
        changed = {group for group in before.keys() | after.keys() if before.get(group) != after.get(group)}
        return BucketRepair(bucket, len(changed), *_differing(_total(before), _total(after)))


def _kept_since(connection: Connection) -> int:
    kept_since: int | None = connection.scalar(select(usage_retention.c.kept_since))
    return kept_since or 0


def _merge_marks(connection: Connection, marks: Marks, last: int) -> int | None:
    """Add the records of the next stretch behind the id `last`; where it ends, or None when there are no more."""
    columns = usage_records.c
    first = connection.scalar(select(func.min(columns.id)).where(columns.id > last))
    if first is None:
        return None
    second = columns.started_at.cast(Integer)
    bucket = (second - second % literal_column(str(BUCKET_SECONDS), Integer)).label("bucket")
    end: int = first + _STRETCH
    found = select(bucket, func.min(columns.id), func.max(columns.id)).where(
        columns.id >= first, columns.id < end
    )
    for start, low, high in connection.execute(found.group_by(bucket)):
        known = marks.get(start, (low, high))
        marks[start] = (min(known[0], low), max(known[1], high))
    newest = connection.scalar(select(func.max(columns.id))) or 0
    return min(end - 1, newest)


def _replace_marks(connection: Connection, right: Marks, kept_since: int) -> int:
    marks = usage_marks.c
    rows = connection.execute(select(usage_marks).where(marks.bucket_start >= kept_since))
    stored = {row.bucket_start: (row.first_id, row.last_id) for row in rows}
    wrong = [bucket for bucket in stored.keys() | right.keys() if stored.get(bucket) != right.get(bucket)]
    for bucket in wrong:
        connection.execute(delete(usage_marks).where(marks.bucket_start == bucket))
        if bucket in right:
            first, last = right[bucket]
            connection.execute(insert(usage_marks).values(bucket_start=bucket, first_id=first, last_id=last))
    return len(wrong)


def _stored(connection: Connection, bucket: int) -> Groups:
    rows = connection.execute(select(usage_rollups).where(usage_rollups.c.bucket_start == bucket))
    names = (*COUNTS, *MONEY)
    return {
        tuple(getattr(row, name) for name in _GROUP): {name: getattr(row, name) for name in names}
        for row in rows
    }


def _worked_out(connection: Connection, bucket: int) -> Groups:
    """What `loader.roll_up` says of the bucket's records."""
    records, marks = usage_records.c, usage_marks.c
    ids = select(marks.first_id, marks.last_id).where(marks.bucket_start == bucket).subquery()
    group = [records[name] for name in _GROUP]
    found = (
        select(*group, *_sums())
        .where(records.id >= ids.c.first_id, records.id <= ids.c.last_id)
        .where(records.started_at >= bucket, records.started_at < bucket + BUCKET_SECONDS)
        .group_by(*group)
    )
    groups: Groups = {}
    for row in connection.execute(found):
        sums = {name: getattr(row, name) for name in COUNTS}
        money = {
            name: min(MAX_NANO, getattr(row, f"{name}_units") * NANO + getattr(row, name)) for name in MONEY
        }
        groups[tuple(getattr(row, name) for name in _GROUP)] = {**sums, **money}
    return groups


def _sums() -> Iterator[ColumnElement[Any]]:
    records = usage_records.c
    is_gone_unadmitted = and_(records.end_reason == "client_gone", records.charged == 0)
    is_refused = or_(records.end_reason == "refused", is_gone_unadmitted)
    is_error = and_(
        ~is_refused, (records.status >= 400) | records.end_reason.in_(("upstream_error", "timeout"))
    )
    yield func.sum(case((is_refused, 0), else_=1)).label("requests")
    yield func.sum(case((is_error, 1), else_=0)).label("errors")
    yield func.sum(case((is_refused, 1), else_=0)).label("refused")
    for name in COUNTS[3:]:
        yield func.sum(records[name]).label(name)
    nano = literal_column(str(NANO), Integer)
    for name, column in zip(
        MONEY, (records.cost, records.cost, records.charged_cost, records.charged_cost), strict=True
    ):
        amount = case((records.currency == name.rpartition("_")[2].upper(), column), else_=0)
        yield func.sum(amount // nano).label(f"{name}_units")
        yield func.sum(amount % nano).label(name)


def _replace(connection: Connection, bucket: int, groups: Groups) -> None:
    connection.execute(delete(usage_rollups).where(usage_rollups.c.bucket_start == bucket))
    rows = [
        {"bucket_start": bucket, **dict(zip(_GROUP, group, strict=True)), **sums}
        for group, sums in groups.items()
    ]
    if rows:
        connection.execute(insert(usage_rollups), rows)


def _total(groups: Groups) -> Sums:
    return {name: sum(sums[name] for sums in groups.values()) for name in (*COUNTS, *MONEY)}


def _differing(before: Sums, after: Sums) -> tuple[Sums, Sums]:
    names = [name for name in before if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}
