"""Looks after the way of the usage records: tells of damage in the journal, and of records that wait too long."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from lingpai.metering.segments import START, Position
from lingpai.metering.tables import usage_damage
from lingpai.storage.database import Database

DELAYED_AFTER_S: Final = 60.0
_LOOK_ANYWAY_S: Final = 60.0
_TOLD_AGAIN_S: Final = 3 * 86_400


class Damage(NamedTuple):
    """A place of the journal that could not be read. `id` is unique, `found_at` in Unix seconds."""

    id: int
    found_at: float
    segment: int
    description: str


class Journaled(Protocol):
    """What writes (the journal) or has loaded (the ingester) up to a position."""

    @property
    def position(self) -> Position: ...


class Loading(Journaled, Protocol):
    """The ingester, which counts the damaged places that it has skipped."""

    @property
    def skipped(self) -> int: ...


class JournalWatch:
    """Belongs to the event loop; `look` is for a job that runs every few seconds."""

    def __init__(
        self,
        database: Database,
        journal: Journaled,
        ingester: Loading,
        *,
        on_damage: Callable[[Damage], None],
        on_delay: Callable[[float], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_damage` may be told again, in the days after, of what was found: a server may be killed before it notes it.

        `on_delay` is told once how many seconds records have been waiting, and again only after they had arrived.
        """
        self._database = database
        self._journal = journal
        self._ingester = ingester
        self._on_damage = on_damage
        self._on_delay = on_delay
        self._clock = clock
        self._monotonic = monotonic
        self._last_id = 0
        self._skipped = -1
        self._look_at = 0.0
        self._awaited = START
        self._waiting_since = 0.0
        self._has_told = False

    async def look(self) -> None:
        """Tell of what is new."""
        self._look_for_delay()
        skipped, now = self._ingester.skipped, self._monotonic()
        # A killed ingester may have noted damage without saying so.
        if skipped == self._skipped and now < self._look_at:
            return
        try:
            found = await asyncio.to_thread(self._new_damage)
        except OperationalError:
            return  # locked or away: the next round looks again
        self._skipped, self._look_at = skipped, now + _LOOK_ANYWAY_S
        for damage in found:
            self._last_id = damage.id
            self._on_damage(damage)

    def _look_for_delay(self) -> None:
        now = self._monotonic()
        if self._ingester.position >= self._awaited:
            self._awaited, self._waiting_since, self._has_told = self._journal.position, now, False
        elif not self._has_told and now - self._waiting_since >= DELAYED_AFTER_S:
            self._has_told = True
            self._on_delay(now - self._waiting_since)

    def _new_damage(self) -> list[Damage]:
        columns = usage_damage.c
        query = (
            select(columns.id, columns.found_at, columns.segment, columns.description)
            .where(columns.id > self._last_id, columns.found_at > self._clock() - _TOLD_AGAIN_S)
            .order_by(columns.id)
        )
        with self._database.read() as connection:
            return [Damage(*row) for row in connection.execute(query)]
