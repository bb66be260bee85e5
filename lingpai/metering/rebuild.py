"""Repair: roll-ups, charges and marks worked out anew from the records, compared with what is there, and put right.

Safe while the server runs. The ingester adds records and sums in one transaction, so in any one state of the database
they must agree. Each bucket is worked out in reading transactions, which hold nobody up; to compare it, and in a writing
one to replace it, only what has arrived since then is added.

Buckets of which retention has deleted records are left alone: their roll-ups are all there is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
)

from lingpai.metering.journal_state import kept_since
from lingpai.metering.records import BUCKET_SECONDS, MAX_NANO, bucket_start
from lingpai.metering.store import joined_sum, split_sum
from lingpai.metering.tables import (
    CHARGED,
    COUNTS,
    MONEY,
    usage_charges,
    usage_marks,
    usage_records,
    usage_rollups,
)
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail
from lingpai.web.periods import iso_utc

_STRETCH: Final = 50_000
_GROUP: Final = ("key_id", "user_id", "client_id", "project_id", "model", "task")
_SUBJECT: Final = ("kind", "id", "project_id", "model")

Sums = dict[str, int]
Groups = dict[tuple[str, ...], Sums]
Marks = dict[int, tuple[int, int]]


class BucketSums(NamedTuple):
    """The rows of a bucket: roll-ups by `_GROUP`, charges by `_SUBJECT`."""

    rollups: Groups
    charges: Groups


@dataclass(frozen=True, slots=True)
class BucketRepair:
    """A quarter of an hour with wrong sums: how many rows, and the sums over all of its roll-ups that changed."""

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
        self,
        database: Database,
        *,
        trail: Trail,
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """`on_progress` hears how many buckets are done, of how many."""
        self._database = database
        self._trail = trail
        self._on_progress = on_progress

    def run(self, since: float = 0.0) -> RebuildReport:
        """Compare and repair every bucket from the one of `since` (unix seconds) on, and all marks.

        The audit trail has a record of its beginning and one of what it did. Raises LingpaiError `storage_unavailable`
        when the first cannot be written; nothing is changed then.
        """
        with self._database.read() as connection:
            start = max(kept_since(connection), bucket_start(since))
        self._note("usage.rebuild", {"since": iso_utc(start)})
        marks_repaired = self._repair_marks()
        buckets = self._buckets(start)
        repaired = []
        for number, bucket in enumerate(buckets):
            self._on_progress(number, len(buckets))
            repair = self._repair_bucket(bucket)
            if repair is not None:
                repaired.append(repair)
        self._on_progress(len(buckets), len(buckets))
        done = {"buckets": len(buckets), "repaired": len(repaired), "marks_repaired": marks_repaired}
        self._note("usage.rebuilt", {"since": iso_utc(start), **done})
        return RebuildReport(start, len(buckets), tuple(repaired), marks_repaired)

    def _note(self, action: str, after: dict[str, Any]) -> None:
        self._trail.note(None, Deed(action=action, target_kind="usage", target_id="sums", after=after))

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
        with self._database.write(durable=False) as connection:
            while (end := _merge_marks(connection, right, last)) is not None:
                last = end
            kept = kept_since(connection)
            right = {bucket: mark for bucket, mark in right.items() if bucket >= kept}
            return _replace_marks(connection, right, kept)

    # Roll-ups

    def _buckets(self, start: int) -> list[int]:
        with self._database.read() as connection:
            found: set[int] = set()
            for table in (usage_marks, usage_rollups, usage_charges):
                column = table.c.bucket_start
                found.update(connection.scalars(select(column).where(column >= start).distinct()))
        return sorted(found)

    def _repair_bucket(self, bucket: int) -> BucketRepair | None:
        worked_out, end = self._work_out(bucket)
        with self._database.read() as connection:
            right, end = _with_later(connection, bucket, worked_out, end)
            if _stored(connection, bucket) == _finish(right):
                return None
        with self._database.write(durable=False) as connection:
            if bucket < kept_since(connection):
                return None  # retention came first, and what is left of the records is not all
            right, _ = _with_later(connection, bucket, right, end)
            before, after = _stored(connection, bucket), _finish(right)
            _replace(connection, bucket, after)
        changed = sum(_count_differing(*pair) for pair in zip(before, after, strict=True))
        return BucketRepair(bucket, changed, *_differing(_total(before.rollups), _total(after.rollups)))

    def _work_out(self, bucket: int) -> tuple[Groups, int]:
        """The sums of the bucket's records until now, in stretches, and the id of the last one looked at."""
        groups: Groups = {}
        with self._database.read() as connection:
            ids = _ids(connection, bucket)
        if ids is None:
            return groups, 0
        first, last = ids
        for start in range(first, last + 1, _STRETCH):
            with self._database.read() as connection:
                _add(groups, _summed(connection, bucket, start, min(last, start + _STRETCH - 1)))
        return groups, last


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


def _replace_marks(connection: Connection, right: Marks, start: int) -> int:
    marks = usage_marks.c
    rows = connection.execute(select(usage_marks).where(marks.bucket_start >= start))
    stored = {row.bucket_start: (row.first_id, row.last_id) for row in rows}
    wrong = [bucket for bucket in stored.keys() | right.keys() if stored.get(bucket) != right.get(bucket)]
    for bucket in wrong:
        connection.execute(delete(usage_marks).where(marks.bucket_start == bucket))
        if bucket in right:
            first, last = right[bucket]
            connection.execute(insert(usage_marks).values(bucket_start=bucket, first_id=first, last_id=last))
    return len(wrong)


def _stored(connection: Connection, bucket: int) -> BucketSums:
    return BucketSums(
        _rows(connection, usage_rollups, bucket, _GROUP, (*COUNTS, *MONEY)),
        _rows(connection, usage_charges, bucket, _SUBJECT, CHARGED),
    )


def _rows(
    connection: Connection, table: Table, bucket: int, group: tuple[str, ...], names: tuple[str, ...]
) -> Groups:
    rows = connection.execute(select(table).where(table.c.bucket_start == bucket)).mappings()
    return {tuple(row[name] for name in group): {name: row[name] for name in names} for row in rows}


def _ids(connection: Connection, bucket: int) -> tuple[int, int] | None:
    marks = usage_marks.c
    found = connection.execute(
        select(marks.first_id, marks.last_id).where(marks.bucket_start == bucket)
    ).one_or_none()
    return None if found is None else (found[0], found[1])


def _with_later(connection: Connection, bucket: int, groups: Groups, end: int) -> tuple[Groups, int]:
    """`groups` and the records with ids over `end`: what has arrived since. And the id of the last one."""
    ids = _ids(connection, bucket)
    if ids is None or ids[1] <= end:
        return groups, end
    sums = {group: dict(each) for group, each in groups.items()}
    _add(sums, _summed(connection, bucket, max(ids[0], end + 1), ids[1]))
    return sums, ids[1]


def _add(groups: Groups, more: Iterable[tuple[tuple[str, ...], Sums]]) -> None:
    for group, sums in more:
        total = groups.setdefault(group, dict.fromkeys(sums, 0))
        for name, amount in sums.items():
            total[name] += amount


def _finish(groups: Groups) -> BucketSums:
    """What `loader.roll_up` and `loader.charges_of` say of records with these sums."""
    rollups = {group: dict(sums) for group, sums in groups.items()}
    charges: Groups = {}
    for (_, user_id, client_id, project_id, model, _), sums in groups.items():
        charged = {name: sums[name] for name in CHARGED}
        if not any(charged.values()):
            continue
        _add(charges, [(("user", user_id, project_id, model), charged)])
        for kind, id_ in (("model", model), ("client", client_id)):
            if id_:
                _add(charges, [((kind, id_, "", ""), charged)])
    for total in (*rollups.values(), *charges.values()):
        total.update({name: min(MAX_NANO, total[name]) for name in MONEY if name in total})
    return BucketSums(rollups, charges)


def _summed(
    connection: Connection, bucket: int, first: int, last: int
) -> Iterator[tuple[tuple[str, ...], Sums]]:
    """The sums of the bucket's records with ids from `first` to `last`, by `_GROUP`. Money is not capped."""
    records = usage_records.c
    group = [records[name] for name in _GROUP]
    found = (
        select(*group, *_sums())
        .where(records.id >= first, records.id <= last)
        .where(records.started_at >= bucket, records.started_at < bucket + BUCKET_SECONDS)
        .group_by(*group)
    )
    for row in connection.execute(found):
        sums = {name: getattr(row, name) for name in COUNTS}
        sums |= {name: joined_sum(row, name) for name in MONEY}
        yield tuple(row[: len(group)]), sums


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
    for name, column in zip(
        MONEY, (records.cost, records.cost, records.charged_cost, records.charged_cost), strict=True
    ):
        amount = case((records.currency == name.rpartition("_")[2].upper(), column), else_=0)
        yield from split_sum(amount, name)


def _replace(connection: Connection, bucket: int, right: BucketSums) -> None:
    for table, names, groups in (
        (usage_rollups, _GROUP, right.rollups),
        (usage_charges, _SUBJECT, right.charges),
    ):
        connection.execute(delete(table).where(table.c.bucket_start == bucket))
        rows = [
            {"bucket_start": bucket, **dict(zip(names, group, strict=True)), **sums}
            for group, sums in groups.items()
        ]
        if rows:
            connection.execute(insert(table), rows)


def _count_differing(before: Groups, after: Groups) -> int:
    return sum(before.get(group) != after.get(group) for group in before.keys() | after.keys())


def _total(groups: Groups) -> Sums:
    return {name: sum(sums[name] for sums in groups.values()) for name in (*COUNTS, *MONEY)}


def _differing(before: Sums, after: Sums) -> tuple[Sums, Sums]:
    names = [name for name in before if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}
