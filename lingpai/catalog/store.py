"""Targets in the database."""

import time

from sqlalchemy import delete, insert, select

from lingpai.catalog.tables import targets
from lingpai.storage.database import Database


class SqlTargetStore:
    """The targets that `lingpai models add` keeps. All methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[str]:
        """Every kept target, oldest first."""
        with self._database.read() as connection:
            return list(connection.scalars(select(targets.c.target).order_by(targets.c.added_at)))

    def add(self, target: str) -> None:
        """Keep a target; nothing happens when it is kept already."""
        with self._database.write() as connection:
            known = connection.scalar(select(targets.c.target).where(targets.c.target == target))
            if known is None:
                connection.execute(insert(targets).values(target=target, added_at=time.time()))

    def remove(self, target: str) -> None:
        """Forget a target; nothing happens when it is not kept."""
        with self._database.write() as connection:
            connection.execute(delete(targets).where(targets.c.target == target))
