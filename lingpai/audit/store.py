"""Reading the trail. All methods block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select

from lingpai.audit.tables import audit_checkpoints, audit_records
from lingpai.storage.database import Database

_STRETCH: Final = 50_000
_MOST_STRETCHES: Final = 10
_CHUNK: Final = 500
_ESCAPE: Final = "\\"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which records are wanted; None does not restrict. `since` (included) and `until` (excluded) are Unix seconds.

    `actor` is a user's id or name or a credential's id, `target` an id or a name; `search` a text that the record holds
    anywhere, in any case of letters (of ASCII).
    """

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    result: str | None = None
    since: float | None = None
    until: float | None = None
    search: str | None = None

    @property
    def leaves_gaps(self) -> bool:
        """Whether records between two that are wanted may be left out."""
        return any((self.action, self.actor, self.target, self.result, self.search))


class RecordPage(NamedTuple):
    """Some records, the newest first, and the number before which the next page begins; None when there is none."""

    records: list[Row[Any]]
    next_before: int | None


class Tail(NamedTuple):
    """The end of the trail: the newest record's number and hash."""

    number: int
    hash: str


class SqlAuditStore:
    """The records and checkpoints in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: AuditFilter, *, limit: int, before: int | None = None) -> RecordPage:
        """Up to `limit` records numbered below `before`, the newest first.

        A search that no index helps looks at half a million records and then answers: such a page can have fewer, or
        none, and still a next one.
        """
        found: list[Row[Any]] = []
        with self._database.read() as connection:
            top = _tail(connection)
            end = 0 if top is None else top.number + 1
            end = end if before is None else min(before, end)
            stretch = end if _has_index(wanted) else _STRETCH
            for _ in range(_MOST_STRETCHES):
                if end <= 1:
                    return RecordPage(found, None)
                start = max(1, end - stretch)
                query = _wanted_in(wanted, start, end).order_by(audit_records.c.number.desc())
                found += connection.execute(query.limit(limit + 1 - len(found)))
                if len(found) > limit:
                    return RecordPage(found[:limit], found[limit - 1].number)
                end = start
        return RecordPage(found, end if end > 1 else None)

    def all(self, wanted: AuditFilter, *, last: int) -> Iterator[list[Row[Any]]]:
        """Every wanted record up to the number `last`, the oldest first, some hundreds at a time.

        No transaction is open in between.
        """
        start = 1
        while start <= last:
            # Whole stretches where most records are left out, or a slow search would hold the database for long.
            end = min(last + 1, start + _STRETCH)
            query = _wanted_in(wanted, start, end).order_by(audit_records.c.number).limit(_CHUNK)
            with self._database.read() as connection:
                chunk = list(connection.execute(query))
            start = chunk[-1].number + 1 if len(chunk) == _CHUNK else end
            if chunk:
                yield chunk

    def tail(self) -> Tail | None:
        """The newest record; None when there is none."""
        with self._database.read() as connection:
            return _tail(connection)

    def hash_at(self, number: int) -> str | None:
        """The hash of a record; None when there is none with this number."""
        query = select(audit_records.c.hash).where(audit_records.c.number == number)
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
        return found

    def newest_checkpoint(self) -> int:
        """The number of the last record that a checkpoint covers; 0 when there is none."""
        with self._database.read() as connection:
            return connection.scalar(select(func.max(audit_checkpoints.c.number))) or 0

    def checkpoints(self, first: int, last: int) -> Sequence[Row[Any]]:
        """The checkpoints that cover records up to a number from `first` to `last`, in order: `number` and `line`."""
        number = audit_checkpoints.c.number
        query = select(audit_checkpoints).where(number >= first, number <= last).order_by(number)
        with self._database.read() as connection:
            return connection.execute(query).all()

    def add_checkpoint(self, number: int, line: str) -> None:
        """Keep a checkpoint, newer than all that are kept."""
        with self._database.write() as connection:
            connection.execute(insert(audit_checkpoints).values(number=number, line=line))


def _tail(connection: Connection) -> Tail | None:
    columns = audit_records.c
    query = select(columns.number, columns.hash).order_by(columns.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Tail(row.number, row.hash)


def _has_index(wanted: AuditFilter) -> bool:
    """Whether few records have to be looked at, however many there are."""
    is_selective = wanted.action is not None or wanted.actor is not None or wanted.target is not None
    return is_selective or (wanted.search is None and wanted.result is None)


def _wanted_in(wanted: AuditFilter, start: int, end: int) -> Select[Any]:
    columns = audit_records.c
    conditions: list[ColumnElement[bool]] = [columns.number >= start, columns.number < end]
    if wanted.action is not None:
        conditions.append(columns.action == wanted.action)
    if wanted.result is not None:
        conditions.append(columns.result == wanted.result)
    if wanted.actor is not None:
        names = (columns.actor_id, columns.actor_name, columns.credential)
        conditions.append(or_(*(name == wanted.actor for name in names)))
    if wanted.target is not None:
        conditions.append(or_(columns.target_id == wanted.target, columns.target_name == wanted.target))
    if wanted.since is not None:
        conditions.append(columns.time >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.time < wanted.until)
    if wanted.search is not None:
        conditions.append(columns.line.like(f"%{_literally(wanted.search)}%", escape=_ESCAPE))
    return select(audit_records).where(and_(*conditions))


def _literally(text: str) -> str:
    """`text` for LIKE, in which nothing is a wildcard."""
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    return text
