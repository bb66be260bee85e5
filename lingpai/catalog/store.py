"""Targets in the database, and the providers' keys for them, sealed."""

import time
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from lingpai.catalog.interfaces import KeptKey, KeptTarget
from lingpai.catalog.tables import SEALED_KEYS, targets
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.sealing import Sealer
from lingpai.storage.trail import Deed, Trail

_SHOWN: Final = 4
_LEAST_TO_SHOW_SOME: Final = 20
"""Of a shorter key, four characters would be too large a part."""


class SqlTargetStore:
    """The targets that `lingpai models add` keeps. All methods block."""

    def __init__(self, database: Database, sealer: Sealer, *, trail: Trail) -> None:
        self._database = database
        self._sealer = sealer
        self._trail = trail

    def all(self) -> list[str]:
        """Every kept target, oldest first."""
        return [kept.target for kept in self.kept()]

    def kept(self) -> list[KeptTarget]:
        """Every kept target with what may be shown of its key, oldest first."""
        columns = (targets.c.target, targets.c.added_at, targets.c.key_hint, targets.c.key_set_at)
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).order_by(targets.c.added_at)).all()
        return [
            KeptTarget(
                row.target,
                row.added_at,
                None if row.key_set_at is None else KeptKey(row.key_hint, row.key_set_at),
            )
            for row in rows
        ]

    def add(self, caller: Principal | None, target: str, api_key: str | None = None) -> bool:
        """Keep a target, with the provider's key for it if one is given. Returns whether it was not kept before.

        One that is kept stays; a key replaces its key.
        """
        with self._database.write() as connection:
            known = connection.scalar(select(targets.c.target).where(targets.c.target == target))
            if known is None:
                connection.execute(insert(targets).values(target=target, added_at=time.time()))
                self._trail.record(connection, caller, _deed("target.add", target))
            if api_key is not None:
                self._put_key(connection, caller, target, api_key)
            return known is None

    def put_key(self, caller: Principal | None, target: str, api_key: str | None) -> bool:
        """Replace the key of a kept target, or remove it (None). False when the target is not kept."""
        with self._database.write() as connection:
            return self._put_key(connection, caller, target, api_key)

    def read_key(self, target: str) -> str | None:
        """The key for a target; None when there is none. Raises SealError when it does not open."""
        with self._database.read() as connection:
            sealed = connection.scalar(select(targets.c.sealed_key).where(targets.c.target == target))
        if sealed is None:
            return None
        # It was sealed for this very target: a row that was made to name another host opens nothing.
        return self._sealer.open(SEALED_KEYS.purpose, target, bytes(sealed)).decode()

    def remove(self, caller: Principal | None, target: str, *, reason: str | None = None) -> None:
        """Forget a target and its key, for a `reason` if there is one to tell; nothing happens when it is not kept."""
        with self._database.write() as connection:
            if connection.execute(delete(targets).where(targets.c.target == target)).rowcount:
                self._trail.record(connection, caller, _deed("target.remove", target, reason))

    def _put_key(
        self, connection: Connection, caller: Principal | None, target: str, api_key: str | None
    ) -> bool:
        values: dict[str, object] = {"sealed_key": None, "key_hint": None, "key_set_at": None}
        if api_key is not None:
            sealed = self._sealer.seal(SEALED_KEYS.purpose, target, api_key.encode())
            values = {"sealed_key": sealed, "key_hint": _hint(api_key), "key_set_at": time.time()}
        outcome = connection.execute(update(targets).where(targets.c.target == target).values(values))
        if outcome.rowcount == 1:
            action = "target.remove_key" if api_key is None else "target.set_key"
            self._trail.record(connection, caller, _deed(action, target))
        return outcome.rowcount == 1


def _hint(api_key: str) -> str:
    return f"…{api_key[-_SHOWN:]}" if len(api_key) >= _LEAST_TO_SHOW_SOME else "…"


def _deed(action: str, target: str, reason: str | None = None) -> Deed:
    return Deed(action=action, target_kind="target", target_id=target, reason=reason)
