"""Questions to the roll-ups: sums for reports, and what the limits were charged before this process started."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    func,
    literal_column,
    select,
)

from lingpai.metering.money import NANO
from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.tables import usage_marks, usage_records, usage_retention, usage_rollups
from lingpai.storage.database import Database

GroupColumn = Literal["key_id", "user_id", "project_id", "model", "task", "bucket_start"]
Charge = tuple[float, int]
"""When a call was admitted (unix seconds), and what it was charged."""

COUNTS: Final = (
    "requests", "errors", "refused", "charged", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "charged_tokens",
)  # fmt: skip
MONEY: Final = ("cost_usd", "cost_cny", "charged_usd", "charged_cny")

SUBJECT_COLUMNS: Final = ("key_id", "user_id", "project_id", "model")
"""What records and roll-ups can both be narrowed to."""

_LAST_MOMENT: Final = 1e12
_KINDS: Final = ("key", "client", "user", "project", "model", "user_model")
_UNITS: Final = ("requests", "tokens", "USD", "CNY")

# Spelled out rather than bound: SQLite uses a partial index only when it sees the index's own condition.
_IS_CHARGED: Final[ColumnElement[bool]] = usage_records.c.charged > literal_column("0")
_IS_CURRENCY: Final = {
    name: usage_records.c.currency == literal_column(f"'{name}'", String) for name in ("USD", "CNY")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which roll-ups to add up: from `since` until before `until` (bucket starts), and only of these if not None."""

    since: int
    until: int
    key_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    model: str | None = None


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
        """One row for each group, the busiest first: the columns `by`, then `COUNTS`, then `MONEY` (10^-9).

        No row when nothing matches. Rows are read as they are asked for; closing the iterator ends the reading.
        """
        columns = usage_rollups.c
        groups = [columns[name] for name in by]
        requests = func.sum(columns.requests)
        sums = [func.sum(columns[name]).label(name) for name in COUNTS]
        money = [part for name in MONEY for part in _split_sum(columns[name], name)]
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

    def prepare(self) -> None:
        """Ask every question of the limits once, about nobody: the first time costs a millisecond for each."""
        for kind, unit in _ALL:
            self.charged_since((kind, ""), unit, _LAST_MOMENT)
            self.charges_since((kind, ""), unit, _LAST_MOMENT)

    def charged_since(self, subject: tuple[str, str], unit: str, since: float) -> int:
        """How much was charged to `subject` for calls admitted at `since` (unix seconds) or later.

        Whole buckets come from the roll-ups, so a month costs no more than an hour; the piece of a bucket before
        them is counted call by call.
        """
        first = bucket_start(since)
        boundary = first if first == since else first + BUCKET_SECONDS
        values = {
            **_identify(subject),
            "since": float(since),
            "since_bucket": first,
            "boundary": boundary,
            "before": float(boundary),
        }
        with self._database.read() as connection:
            parts = connection.execute(_CHARGED_SINCE[subject[0], unit], values).all()
        return sum((units or 0) * NANO + (rest or 0) for units, rest in parts)

    def charges_since(self, subject: tuple[str, str], unit: str, since: float) -> list[Charge]:
        """What was charged to `subject` call by call, from `since` (unix seconds) on, ascending.

        Of a time whose records retention has deleted, all charges of a bucket are one at its end: later than they
        were, so that a limit rebuilt from them never lets too much through.
        """
        values = {**_identify(subject), "since": float(since), "since_bucket": bucket_start(since)}
        with self._database.read() as connection:
            kept_since = connection.scalar(_KEPT_SINCE) or 0
            deleted: list[Charge] = []
            if since < kept_since and subject[0] != "client":
                rows = connection.execute(
                    _DELETED_SINCE[subject[0], unit], {**values, "kept_since": kept_since}
                )
                deleted = [(bucket + BUCKET_SECONDS, amount) for bucket, amount in rows]
                values["since"] = float(kept_since)
            charges = connection.execute(_CHARGES_SINCE[subject[0], unit], values)
            return deleted + [(started_at, amount) for started_at, amount in charges]


def _split_sum(column: ColumnElement[int], name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The sum in two columns, whole units and the rest: together it could be over 64 bits."""
    nano = literal_column(str(NANO), Integer)
    return func.sum(column // nano).label(f"{name}_units"), func.sum(column % nano).label(name)


def _conditions(wanted: UsageFilter) -> list[ColumnElement[bool]]:
    columns = usage_rollups.c
    conditions = [columns.bucket_start >= wanted.since, columns.bucket_start < wanted.until]
    for name in SUBJECT_COLUMNS:
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(columns[name] == value)
    return conditions


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


# Statements of the history. They are put together once: building one takes several times as long as running it, and a
# key's first use waits.


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


def _charged_calls(kind: str) -> list[ColumnElement[bool]]:
    """Conditions that find a subject's charged records from `since` on.

    Their one index begins with the key, and the roll-ups know the keys of everything but clients: those are looked for
    in all records of the time.
    """
    records, rollups = usage_records.c, usage_rollups.c
    since_bucket = bindparam("since_bucket", type_=Integer)
    found = [*_belongs(records, kind), records.started_at >= bindparam("since", type_=Float), _IS_CHARGED]
    if kind == "client":
        first = select(func.min(usage_marks.c.first_id)).where(usage_marks.c.bucket_start >= since_bucket)
        return [records.id >= first.scalar_subquery(), *found]
    if kind != "key":
        keys = select(rollups.key_id).where(*_belongs(rollups, kind), rollups.bucket_start >= since_bucket)
        found.append(records.key_id.in_(keys))
    return found


def _of_unit(unit: str) -> tuple[ColumnElement[int], ColumnElement[int], list[ColumnElement[bool]]]:
    """The unit's column in the roll-ups, the one in the records, and which records have an amount in it."""
    records, rollups = usage_records.c, usage_rollups.c
    if unit == "requests":
        return rollups.charged, records.charged, []
    if unit == "tokens":
        return rollups.charged_tokens, records.charged_tokens, [records.charged_tokens > literal_column("0")]
    has_cost = [_IS_CURRENCY[unit], records.charged_cost > literal_column("0")]
    return rollups[f"charged_{unit.lower()}"], records.charged_cost, has_cost


def _charged_since(kind: str, unit: str) -> CompoundSelect[Any]:
    """Two rows, to be added up: whole buckets and the piece before them. For a client, everything is the piece."""
    in_rollups, in_records, has_amount = _of_unit(unit)
    records, rollups = usage_records.c, usage_rollups.c
    piece = select(*_split_sum(in_records, "amount")).where(*_charged_calls(kind), *has_amount)
    if kind == "client":
        return piece.union_all(select(literal_column("0", Integer), literal_column("0", Integer)))
    whole = select(*_split_sum(in_rollups, "amount")).where(
        *_belongs(rollups, kind), rollups.bucket_start >= bindparam("boundary", type_=Integer)
    )
    return whole.union_all(piece.where(records.started_at < bindparam("before", type_=Float)))


def _charges_since(kind: str, unit: str) -> Select[Any]:
    _, in_records, has_amount = _of_unit(unit)
    records = usage_records.c
    found = select(records.started_at, in_records).where(*_charged_calls(kind), *has_amount)
    return found.order_by(records.started_at)


def _deleted_since(kind: str, unit: str) -> Select[Any]:
    in_rollups, _, _ = _of_unit(unit)
    rollups = usage_rollups.c
    since = rollups.bucket_start >= bindparam("since_bucket", type_=Integer)
    until = rollups.bucket_start < bindparam("kept_since", type_=Integer)
    found = select(rollups.bucket_start, func.sum(in_rollups)).where(*_belongs(rollups, kind), since, until)
    grouped = found.group_by(rollups.bucket_start).having(func.sum(in_rollups) > 0)
    return grouped.order_by(rollups.bucket_start)


_ALL: Final = [(kind, unit) for kind in _KINDS for unit in _UNITS]
_CHARGED_SINCE: Final = {each: _charged_since(*each) for each in _ALL}
_CHARGES_SINCE: Final = {each: _charges_since(*each) for each in _ALL}
_DELETED_SINCE: Final = {each: _deleted_since(*each) for each in _ALL if each[0] != "client"}
_BUCKETS: Final = _buckets()
_KEPT_SINCE: Final = select(usage_retention.c.kept_since)
