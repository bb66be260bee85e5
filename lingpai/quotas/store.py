"""The SQL of the limits that are kept here: those of models, and of users on models."""

import time
from collections.abc import Callable

from sqlalchemy import delete, insert, select, update

from lingpai.quotas.interfaces import Subject
from lingpai.quotas.tables import limits as table
from lingpai.storage.database import Database


class SqlLimitStore:
    """Fulfils the book's `LimitStore`. All methods block."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> dict[Subject, tuple[str, ...]]:
        """Everything that is kept."""
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.kind, table.c.id, table.c.limits))
            return {(row.kind, row.id): tuple(row.limits) for row in rows}

    def replace(self, subject: Subject, limits: tuple[str, ...] | None) -> None:
        """Keep `limits` for `subject` from now on; none at all is kept, too. None forgets what was kept."""
        kind, id_ = subject
        is_it = (table.c.kind == kind) & (table.c.id == id_)
        with self._database.write() as connection:
            if limits is None:
                connection.execute(delete(table).where(is_it))
                return
            values = {"limits": limits, "updated_at": self._clock()}
            changed = connection.execute(update(table).where(is_it).values(values))
            if not changed.rowcount:
                connection.execute(insert(table).values(kind=kind, id=id_, **values))
