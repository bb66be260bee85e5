"""Questions to the sums: of usage for reports, and of what limits were charged before this process started."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Float,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
)

from lingpai.metering.interfaces import Visible
from lingpai.metering.journal_state import kept_since
from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.tables import (
    COUNTS,
    MONEY,
    usage_charges,
    usage_marks,
    usage_records,
    usage_retention,
    usage_rollups,
)
from lingpai.prices import NANO
from lingpai.storage.database import Database

GroupColumn = Literal["key_id", "client_id", "user_id", "project_id", "model", "task"]
Charge = tuple[float, int]
"""When a call was admitted (unix seconds), and what it was charged."""

SUBJECT_COLUMNS: Final = ("key_id", "client_id", "user_id", "project_id", "model")
"""What records and roll-ups can both be narrowed to."""

_KINDS: Final = ("key", "client", "user", "project", "model", "user_model")
_UNITS: Final = ("requests", "tokens", "USD", "CNY")

# Spelled out rather than bound: SQLite uses a partial index only when it sees the index's own condition.
_IS_CHARGED: Final[ColumnElement[bool]] = usage_records.c.charged > literal_column("0")
_IS_CURRENCY: Final = {
    name: usage_records.c.currency == literal_column(f"'{name}'", String) for name in ("USD", "CNY")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which roll-ups to add up: from `since` until before `until` (bucket starts), and only of these if not None.

    `visible` hides what the caller may not see.
    """

    since: int
    until: int
    key_id: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None
    visible: Visible | None = None


class SqlUsageStore:
    """Reads usage from the database. All methods block; none waits for the ingester.

    Also the `UsageHistory` that quotas ask for what was charged before the process started. A subject is a kind (key,
    client, user, project, model, user_model) and an id (of a user_model: the user's, a blank, the model's); a unit is
    requests, tokens, USD or CNY, money in 10^-9. What counts is what was charged, at the time the call was admitted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Sums for reports

    def totals(self, wanted: UsageFilter, by: Sequence[GroupColumn]) -> Iterator[Row[Any]]:
        """One row for each group, the busiest first: the columns `by`, then `COUNTS`, then `MONEY`, split (`joined_sum`).

        No row when nothing matches. Rows are read as they are asked for; closing the iterator ends the reading.
        """
        columns = usage_rollups.c
        groups = [columns[name] for name in by]
        requests = func.sum(columns.requests)
        sums = [func.sum(columns[name]).label(name) for name in COUNTS]
        money = [part for name in MONEY for part in split_sum(columns[name], name)]
        statement = select(*groups, *sums, *money).where(*_conditions(wanted)).group_by(*groups)
        if not groups:
            statement = statement.having(func.count() > 0)
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=500).execute(
                statement.order_by(requests.desc(), *groups)
            )
            yield from rows

    def buckets(self, wanted: UsageFilter) -> list[int]:
        """The starts of the buckets in which there is anything, ascending."""
        with self._database.read() as connection:
            return list(connection.scalars(_BUCKETS, {"since": wanted.since, "until": wanted.until}))

    # History for limits

    def charged_since(self, subject: tuple[str, str], unit: str, since: float) -> int:
        """How much was charged to `subject` for calls admitted at `since` (unix seconds) or later.

        Whole buckets come from the sums, so that a month costs little more than an hour, and a million keys no more
        than one; the piece of a bucket before them is counted call by call. Where retention has deleted the calls, it
        is the whole bucket: never too little.
        """
        values = {**_identify(subject), "since": float(since), "since_bucket": bucket_start(since)}
        with self._database.read() as connection:
            parts = connection.execute(_charged_since(subject[0], unit), values).all()
        return sum((units or 0) * NANO + (rest or 0) for units, rest in parts)

    def charges_since(self, subject: tuple[str, str], unit: str, since: float) -> list[Charge]:
        """What was charged to `subject` call by call, for those admitted from `since` (unix seconds) on, ascending.

        Requests are charged when a call is admitted, tokens and money when it has ended: the last of them was taken then.
        Of a time whose records retention has deleted, all charges of a bucket are one at its end: later than they
        were, so that a limit rebuilt from them never lets too much through.
        """
        values = {**_identify(subject), "since": float(since), "since_bucket": bucket_start(since)}
        with self._database.read() as connection:
            kept = kept_since(connection)
            deleted: list[Charge] = []
            if since < kept:
                rows = connection.execute(_deleted_since(subject[0], unit), {**values, "kept_since": kept})
                deleted = [(bucket + BUCKET_SECONDS, amount) for bucket, amount in rows]
                values["since"] = float(kept)
            charges = connection.execute(_charges_since(subject[0], unit), values)
            return deleted + [(started_at, amount) for started_at, amount in charges]


def split_sum(column: ColumnElement[int], name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The sum of an amount of money in two columns, whole units and the rest: together it could be over 64 bits."""
    nano = literal_column(str(NANO), Integer)
    return func.sum(column // nano).label(f"{name}_units"), func.sum(column % nano).label(name)


def joined_sum(row: Row[Any], name: str) -> int:
    """What `split_sum` has split under this name, in 10^-9."""
    units: int = getattr(row, f"{name}_units")
    rest: int = getattr(row, name)
    return units * NANO + rest


def _conditions(wanted: UsageFilter) -> list[ColumnElement[bool]]:
    columns = usage_rollups.c
    conditions = [columns.bucket_start >= wanted.since, columns.bucket_start < wanted.until]
    for name in SUBJECT_COLUMNS:
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(columns[name] == value)
    if wanted.visible is not None:
        conditions.append(is_visible(columns, wanted.visible))
    return conditions


def is_visible(columns: Any, visible: Visible) -> ColumnElement[bool]:
    """The condition for rows of the records or the roll-ups that somebody may see."""
    return or_(columns.user_id == visible.user_id, columns.project_id.in_(visible.project_ids))


def _buckets() -> Select[Any]:
    """Steps from bucket to bucket, instead of reading every row to find a few distinct values."""
    rollups = usage_rollups.c
    until = bindparam("until", type_=Integer)
    first = select(func.min(rollups.bucket_start).label("bucket")).where(
        rollups.bucket_start >= bindparam("since", type_=Integer), rollups.bucket_start < until
    )
    steps = first.cte("steps", recursive=True)
    following = (
        select(func.min(rollups.bucket_start))
        .where(rollups.bucket_start > steps.c.bucket, rollups.bucket_start < until)
        .scalar_subquery()
    )
    steps = steps.union_all(select(following).where(steps.c.bucket.is_not(None)))
    return select(steps.c.bucket).where(steps.c.bucket.is_not(None))


# Statements of the history. They are put together once, when first needed: building one takes several times as long as
# running it, and a key's first use waits. Most servers need few of the 72, and all of them take 1 MB.


def _identify(subject: tuple[str, str]) -> dict[str, Any]:
    kind, id_ = subject
    if kind == "user_model":
        user_id, _, model = id_.partition(" ")
        return {"id": user_id, "model": model}
    return {"id": id_}


def _belongs(table: Any, kind: str) -> list[ColumnElement[bool]]:
    """Conditions that hold for the rows of a subject in the records or the roll-ups."""
    id_ = bindparam("id", type_=String)
    if kind == "user_model":
        # Joined with nothing, so that SQLite does not take the index of the model, which leads to many more rows.
        return [
            table.user_id == id_,
            table.model + literal_column("''", String) == bindparam("model", type_=String),
        ]
    column: Column[str] = table["model" if kind == "model" else f"{kind}_id"]
    return [column == id_]


def _sums_of(kind: str, unit: str) -> tuple[Any, ColumnElement[int], list[ColumnElement[bool]]]:
    """The columns of the table with the sums of a subject, the one of the unit, and conditions for its rows."""
    name = {"requests": "charged", "tokens": "charged_tokens"}.get(unit, f"charged_{unit.lower()}")
    rollups, charges = usage_rollups.c, usage_charges.c
    id_ = bindparam("id", type_=String)
    if kind == "key":
        return rollups, rollups[name], [rollups.key_id == id_]
    if kind == "project":
        return charges, charges[name], [charges.project_id == id_]
    found = [
        charges.kind == literal_column("'user'" if kind == "user_model" else f"'{kind}'", String),
        charges.id == id_,
    ]
    if kind == "user_model":
        found.append(charges.model == bindparam("model", type_=String))
    return charges, charges[name], found


def _calls(kind: str, *, only_first: bool) -> list[ColumnElement[bool]]:
    """Conditions that find a subject's charged records from `since` on, with `only_first` in the bucket of that.

    Their one index begins with the key, and the roll-ups know the keys of everything but clients: those are looked for
    in the buckets in which they were charged anything.
    """
    records, rollups = usage_records.c, usage_rollups.c
    first = bindparam("since_bucket", type_=Integer)
    found = [records.started_at >= bindparam("since", type_=Float), _IS_CHARGED]
    if only_first:
        found.append(records.started_at < _boundary())
    if kind == "client":
        sums, _, belongs = _sums_of(kind, "requests")
        start, marks = sums.bucket_start, usage_marks.c
        found += [*belongs, start == first if only_first else start >= first, marks.bucket_start == start]
        found += [records.id >= marks.first_id, records.id <= marks.last_id]
        found += [records.started_at >= start, records.started_at < start + BUCKET_SECONDS]
        return [*found, *_belongs(records, kind)]
    if kind != "key":
        in_time = rollups.bucket_start == first if only_first else rollups.bucket_start >= first
        has_any = rollups.charged > literal_column("0")
        keys = select(rollups.key_id).where(*_belongs(rollups, kind), in_time, has_any)
        found.append(records.key_id.in_(keys))
    return [*_belongs(records, kind), *found]


def _amount(unit: str) -> tuple[ColumnElement[int], list[ColumnElement[bool]]]:
    """The unit's column in the records, and which of them have an amount in it."""
    records = usage_records.c
    if unit == "requests":
        return records.charged, []
    if unit == "tokens":
        return records.charged_tokens, [records.charged_tokens > literal_column("0")]
    return records.charged_cost, [_IS_CURRENCY[unit], records.charged_cost > literal_column("0")]


def _boundary() -> ColumnElement[int]:
    """Where the whole buckets begin, and the piece before them ends: the bucket of `since` is whole when that is its
    start, or when retention has deleted its calls. Worked out in the statement, for each costs a first use time.
    """
    first = bindparam("since_bucket", type_=Integer)
    kept_since = func.coalesce(select(usage_retention.c.kept_since).scalar_subquery(), literal_column("0"))
    is_whole = or_(bindparam("since", type_=Float) == first, first < kept_since)
    return case((is_whole, first), else_=first + literal_column(str(BUCKET_SECONDS), Integer))


@cache
def _charged_since(kind: str, unit: str) -> CompoundSelect[Any]:
    """Two rows, to be added up: whole buckets and the piece before them."""
    sums, in_sums, belongs = _sums_of(kind, unit)
    in_records, has_amount = _amount(unit)
    whole = select(*split_sum(in_sums, "amount")).where(*belongs, sums.bucket_start >= _boundary())
    piece = select(*split_sum(in_records, "amount")).where(*_calls(kind, only_first=True), *has_amount)
    return whole.union_all(piece)


@cache
def _charges_since(kind: str, unit: str) -> Select[Any]:
    in_records, has_amount = _amount(unit)
    records = usage_records.c
    when: ColumnElement[Any] = records.started_at
    if unit != "requests":
        # What a call used beyond its reservation was taken when it ended. One that waited for a limit began later than
        # its duration says, so that is too late for it, never too early.
        when = records.started_at + records.duration_ms / literal_column("1000.0", Float)
    found = select(when, in_records).where(*_calls(kind, only_first=False), *has_amount)
    return found.order_by(when)


@cache
def _deleted_since(kind: str, unit: str) -> Select[Any]:
    sums, in_sums, belongs = _sums_of(kind, unit)
    since = sums.bucket_start >= bindparam("since_bucket", type_=Integer)
    until = sums.bucket_start < bindparam("kept_since", type_=Integer)
    found = select(sums.bucket_start, func.sum(in_sums)).where(*belongs, since, until)
    grouped = found.group_by(sums.bucket_start).having(func.sum(in_sums) > 0)
    return grouped.order_by(sums.bucket_start)


_BUCKETS: Final = _buckets()
