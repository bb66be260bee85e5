"""Seals anew, under the newest root key, what older ones have sealed. Killed at any moment, it goes on after the start."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from lingpai.storage.database import Database
from lingpai.storage.sealed_columns import SealedColumn
from lingpai.storage.sealing import Sealer, SealError

log = logging.getLogger("lingpai.secrets")

BATCH: Final = 100
LOOK_AGAIN_S: Final = 60.0
"""Another server, which does not know the newest root key yet, may have sealed something under an older one."""


class Resealer:
    """Looks after all sealed columns. `run` blocks; one thread at a time calls it."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        columns: Sequence[SealedColumn],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._columns = tuple(columns)
        self._clock = clock
        self._looked: tuple[int, float] | None = None
        self._told: set[str] = set()

    def run(self) -> int:
        """Seal anew whatever an older root key has sealed; returns how many values were.

        A value that does not open stays as it is and is told on the log, once. Looks into the database only after a
        rotation, and once a minute.
        """
        version, now = self._sealer.newest_version, self._clock()
        if self._looked is not None and self._looked[0] == version and now - self._looked[1] < LOOK_AGAIN_S:
            return 0
        done = sum(self._reseal(column, version) for column in self._columns)
        if done:
            log.info("sealed anew under root key %d: %d", version, done)
        self._looked = (version, now)
        return done

    def _reseal(self, column: SealedColumn, version: int) -> int:
        done, after = 0, ""
        while True:
            with self._database.read() as connection:
                rows = column.sealed_before(connection, version, after=after, limit=BATCH)
            renewed = [(id_, old, new) for id_, old in rows if (new := self._renewed(column, id_, old))]
            if renewed:
                with self._database.write() as connection:
                    for id_, old, new in renewed:
                        column.replace(connection, id_, old, new)
            done += len(renewed)
            if len(rows) < BATCH:
                return done
            after = rows[-1][0]

    def _renewed(self, column: SealedColumn, id_: str, sealed: bytes) -> bytes | None:
        try:
            plaintext = self._sealer.open(column.purpose, id_, sealed)
        except SealError as error:
            if f"{column.purpose} {id_}" not in self._told:
                self._told.add(f"{column.purpose} {id_}")
                log.error("%s", error)  # noqa: TRY400  the message says it all
            return None
        return self._sealer.seal(column.purpose, id_, plaintext)
