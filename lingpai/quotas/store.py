"""The SQL of the limits that are kept here: those of models, and of users on models."""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import delete, insert, select, update

from lingpai.principal import Principal
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.tables import limits as table
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class SqlLimitStore:
    """Fulfils the book's `LimitStore`. All methods block."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time, *, trail: Trail) -> None:
        self._database = database
        self._trail = trail
        self._clock = clock

    def all(self) -> dict[Subject, tuple[str, ...]]:
        """Everything that is kept."""
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.kind, table.c.id, table.c.limits))
            return {(row.kind, row.id): tuple(row.limits) for row in rows}

    def replace(self, subject: Subject, limits: tuple[str, ...] | None, *, caller: Principal | None) -> None:
        """Keep `limits` for `subject` from now on; none at all is kept, too. None forgets what was kept.

        It is `caller` who wants that, for the audit trail.
        """
        kind, id_ = subject
        is_it = (table.c.kind == kind) & (table.c.id == id_)
        with self._database.write() as connection:
            before = connection.scalar(select(table.c.limits).where(is_it))
            self._trail.record(connection, caller, _replaced(subject, before, limits))
            if limits is None:
                connection.execute(delete(table).where(is_it))
                return
            values = {"limits": limits, "updated_at": self._clock()}
            changed = connection.execute(update(table).where(is_it).values(values))
            if not changed.rowcount:
                connection.execute(insert(table).values(kind=kind, id=id_, **values))


def _replaced(subject: Subject, before: Sequence[str] | None, after: Sequence[str] | None) -> Deed:
    """`None`: the limits are those of the settings, or of each user."""
    kind, id_ = subject
    return Deed(
        action="limits.reset" if after is None else "limits.set",
        target_kind=kind,
        target_id=id_,
        before={"limits": before},
        after={"limits": after},
    )
