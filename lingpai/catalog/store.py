"""Targets in the database."""

import time

from sqlalchemy import delete, insert, select

from lingpai.catalog.tables import targets
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class SqlTargetStore:
    """The targets that `lingpai models add` keeps. All methods block."""

    def __init__(self, database: Database, *, trail: Trail) -> None:
        self._database = database
        self._trail = trail

    def all(self) -> list[str]:
        """Every kept target, oldest first."""
        with self._database.read() as connection:
            return list(connection.scalars(select(targets.c.target).order_by(targets.c.added_at)))

    def add(self, caller: Principal | None, target: str) -> bool:
        """Keep a target. False, and nothing happens, when it is kept already."""
        with self._database.write() as connection:
            known = connection.scalar(select(targets.c.target).where(targets.c.target == target))
            if known is not None:
                return False
            connection.execute(insert(targets).values(target=target, added_at=time.time()))
            self._trail.record(connection, caller, _deed("target.add", target))
            return True

    def remove(self, caller: Principal | None, target: str, *, reason: str | None = None) -> None:
        """Forget a target, for a `reason` if there is one to tell; nothing happens when it is not kept."""
        with self._database.write() as connection:
            if connection.execute(delete(targets).where(targets.c.target == target)).rowcount:
                self._trail.record(connection, caller, _deed("target.remove", target, reason))


def _deed(action: str, target: str, reason: str | None = None) -> Deed:
    return Deed(action=action, target_kind="target", target_id=target, reason=reason)
