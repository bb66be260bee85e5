"""Deleting old records, a little at a time. The roll-ups stay: reports and limits go on as before."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Integer, delete, func, insert, literal_column, select, update

from lingpai.metering.journal_state import kept_since
from lingpai.metering.records import BUCKET_SECONDS, bucket_start
from lingpai.metering.tables import usage_marks, usage_records, usage_retention, usage_rollups
from lingpai.storage.database import Database

_log = logging.getLogger("lingpai.metering")

_DAY_S: Final = 86_400
_BATCH: Final = 1000
_DAYS_OF_CALLS: Final = 7
_PAUSE_S: Final = 0.05  # the ingester gets its turn; 20,000 records a second are still more than arrive


class Retention:
    """Deletes records whose calls started more than `days` days ago; never, if that is 0.

    Before the first record of a bucket goes, `usage_retention` says that its sums are all there is from now on: what
    is rebuilt, and what limits read, never takes half of a bucket for the whole.

    No clock is believed at once, for it may be years ahead: what time it is at least is told by the days on which calls
    came in, `_DAYS_OF_CALLS` of them. A clock that is put right within that many days has deleted nothing.
    """

    def __init__(
        self,
        database: Database,
        days: int,
        *,
        clock: Callable[[], float] = time.time,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._database = database
        self._days = days
        self._clock = clock
        self._pause_s = pause_s

    async def expire(self) -> int:
        """Delete what is due; how many records that were. Works in threads, and can be cancelled between two batches."""
        if self._days == 0:
            return 0
        kept_since = await asyncio.to_thread(self._advance)
        deleted, after = 0, 0
        while True:
            count, last = await asyncio.to_thread(self._delete_some, kept_since, after)
            deleted += count
            if last is None:
                break
            after = last
            await asyncio.sleep(self._pause_s)
        if deleted:
            _log.info("deleted %d usage records older than %d days", deleted, self._days)
        return deleted

    def _advance(self) -> int:
        """Move the line between what is kept and what may go; the time before which records are to be deleted now.

        The line goes forwards only, except that it does not stay in the future: a clock that was wrong for long has put
        it there. Then it goes back to the last sums before it: of those, records may be gone, and what comes in later
        is complete again.
        """
        clock = self._clock()
        with self._database.write(durable=False) as connection:
            line = kept_since(connection)
            due = bucket_start(max(0.0, min(clock, _time_by_calls(connection, clock)) - self._days * _DAY_S))
            moved = max(line, due)
            if line > clock + BUCKET_SECONDS:
                moved = max(due, _end_of_sums_before(connection, line))
            if moved < line:
                _log.warning(
                    "a clock was ahead, and usage records were deleted; from now on they are kept again"
                )
            if moved != line:
                changed = connection.execute(update(usage_retention).values(kept_since=moved))
                if changed.rowcount == 0:
                    connection.execute(insert(usage_retention).values(id=1, kept_since=moved))
        return min(moved, due)

    def _delete_some(self, kept_since: int, after: int) -> tuple[int, int | None]:
        """Delete what is due among the next records behind the id `after`.

        How many went, and the last id looked at; None when there is nothing left to look at.
        """
        with self._database.write(durable=False) as connection:
            columns = usage_records.c
            stretch = (
                select(columns.id)
                .where(columns.id > after, columns.id < _end(connection, kept_since))
                .order_by(columns.id)
                .limit(_BATCH)
            )
            last: int | None = connection.scalar(select(func.max(stretch.subquery().c.id)))
            if last is None:
                connection.execute(delete(usage_marks).where(usage_marks.c.bucket_start < kept_since))
                return 0, None
            due: Any = delete(usage_records).where(
                columns.id > after, columns.id <= last, columns.started_at < kept_since
            )
            return connection.execute(due).rowcount, last


def _time_by_calls(connection: Connection, clock: float) -> int:
    """The time that it is at least: the end of the last of `_DAYS_OF_CALLS` days with calls, had they followed each other.

    Such that a day or two under a wrong clock change little; 0 if there were not so many days until `clock`.
    """
    day = (usage_marks.c.bucket_start // literal_column(str(_DAY_S), Integer)).label("day")
    days = select(day).where(usage_marks.c.bucket_start <= clock).distinct().order_by(day.desc())
    first: int | None = connection.scalar(days.offset(_DAYS_OF_CALLS - 1).limit(1))
    return 0 if first is None else (first + _DAYS_OF_CALLS) * _DAY_S


def _end_of_sums_before(connection: Connection, line: int) -> int:
    buckets = usage_rollups.c.bucket_start
    newest: int | None = connection.scalar(select(func.max(buckets)).where(buckets < line))
    return 0 if newest is None else newest + BUCKET_SECONDS


def _end(connection: Connection, kept_since: int) -> int:
    """The id before which old records are: where the first bucket that is kept begins.

    Those that arrived later than that go when that bucket does.
    """
    marks = usage_marks.c
    first_kept = select(marks.first_id).where(marks.bucket_start >= kept_since).order_by(marks.bucket_start)
    found: int | None = connection.scalar(first_kept.limit(1))
    return found or 0
