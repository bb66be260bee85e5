"""Events: taken up anywhere at no cost, stored in batches, shown to those whom they concern."""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

from sqlalchemy.exc import OperationalError

from lingpai.events.interfaces import Event, EventType, Subject, SubjectOwners
from lingpai.events.store import EventFilter, Position, SqlEventStore
from lingpai.ids import new_id
from lingpai.prices import Currency, decimal_text
from lingpai.principal import Principal

log = logging.getLogger("lingpai.events")

MOST_PENDING: Final = 10_000
"""Events that wait in memory while the database is away; more are dropped, and the log says how many."""

_BATCH: Final = 500
_DAY_S: Final = 86_400


class _Emitted(NamedTuple):
    type: str
    occurred_at: float
    message: str
    data: Mapping[str, Any]
    subject: Subject | None
    once: str | None


class Events:
    """The events of one server.

    `emit` may be called anywhere, on the event loop too: it only appends to a queue. `flush` moves the queue into the
    database; what the process had not flushed when it was killed is lost, unless it happens again.
    """

    def __init__(
        self,
        store: SqlEventStore,
        *,
        owners: SubjectOwners,
        recipients: Mapping[str, tuple[str, ...]],
        on_stored: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`recipients` are the webhooks of each type of event; `on_stored` is called, on the loop, when there are new ones."""
        self._store = store
        self._owners = owners
        self._recipients = recipients
        self._on_stored = on_stored
        self._clock = clock
        self._pending: deque[_Emitted] = deque()
        self._dropped = 0
        self._flushing = asyncio.Lock()

    def emit(
        self,
        type_: EventType,
        message: str,
        *,
        data: Mapping[str, Any],
        subject: Subject | None = None,
        once: str | None = None,
        occurred_at: float | None = None,
    ) -> None:
        """Say that something happened, at `occurred_at` (Unix seconds) or now. Never blocks and never raises.

        `message` is one sentence, `data` what JSON can hold. Of events of one type with the same `once` only the first is
        kept, over restarts too. Whoever owns `subject` may see the event.
        """
        if len(self._pending) >= MOST_PENDING:
            self._dropped += 1
            return
        at = self._clock() if occurred_at is None else occurred_at
        self._pending.append(_Emitted(type_, at, message, data, subject, once))

    def emit_threshold(
        self,
        subject: Subject,
        *,
        label: str,
        limit: str,
        unit: str,
        percent: int,
        used: int,
        amount: int,
        window: tuple[float, float],
        now: float,
    ) -> None:
        """Say that `percent` of a limit is used; once for each subject, limit, window and percentage.

        `label` names the subject in sentences (key `ci`), `limit` is its canonical text, `window` its start and end in
        Unix seconds; amounts of money are in nano.
        """
        start, end = window
        data = {
            "label": label,
            "limit": limit,
            "unit": unit,
            "percent": percent,
            "used": _amount(used, unit),
            "amount": _amount(amount, unit),
            "window_start": iso_utc(start),
            "window_end": iso_utc(end),
        }
        self.emit(
            "limit.threshold",
            f"{percent} % of the limit {limit} of {label} is used: {data['used']} of {data['amount']}."
            f" It starts anew at {iso_utc(end)}.",
            data=data,
            subject=subject,
            once=f"{subject[0]} {subject[1]} {limit} {start:.0f} {percent}",
            occurred_at=now,
        )

    async def flush(self) -> None:
        """Store what was emitted. While the database is away it stays in memory, and the log says so."""
        if not self._pending:
            return
        async with self._flushing:
            while self._pending:
                batch = [self._pending.popleft() for _ in range(min(len(self._pending), _BATCH))]
                if not await self._stored(batch):
                    return
        self._report_dropped()

    async def remove_old(self, keep_days: int) -> None:
        """Remove events older than `keep_days`."""
        await asyncio.to_thread(self._store.remove_before, self._clock() - keep_days * _DAY_S)

    def list(
        self,
        caller: Principal,
        *,
        type_: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: Position | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """Up to `limit` events that `caller` may see, the newest first. Blocks.

        All for an administrator, for everybody else those about what is theirs and about the projects they have a role in.
        """
        user_id = None if caller.is_admin else caller.user_id
        project_ids = () if user_id is None else tuple(self._owners.projects(user_id))
        wanted = EventFilter(
            user_id=user_id, project_ids=project_ids, type=type_, since=since, until=until, before=before
        )
        return self._store.page(wanted, limit=limit)

    async def _stored(self, batch: Sequence[_Emitted]) -> bool:
        # In a task of its own: cancelled while it writes, only the thread knows whether the batch arrived.
        storing = asyncio.create_task(asyncio.to_thread(self._store_batch, batch))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            await asyncio.wait([storing])
            if storing.exception() is not None:
                self._pending.extendleft(reversed(batch))
            raise
        except OperationalError:
            self._pending.extendleft(reversed(batch))
            log.warning("%d events wait in memory: the database cannot be written", len(self._pending))
            return False
        if storing.result():
            self._on_stored()
        return True

    def _store_batch(self, batch: Sequence[_Emitted]) -> int:
        owners = self._owners.owners({item.subject for item in batch if item.subject is not None})
        return self._store.add([_row(item, owners) for item in batch], self._recipients)

    def _report_dropped(self) -> None:
        if self._dropped:
            log.error("%d events were dropped: too many waited while the database was away", self._dropped)
            self._dropped = 0


def iso_utc(moment: float) -> str:
    """`moment` (Unix seconds) as ``2026-11-20T08:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _row(item: _Emitted, owners: Mapping[Subject, str]) -> dict[str, Any]:
    kind, subject_id = item.subject or (None, None)
    once = None if item.once is None else hashlib.sha256(f"{item.type}\n{item.once}".encode()).hexdigest()
    return {
        "id": new_id("evt"),
        "type": item.type,
        "occurred_at": item.occurred_at,
        "subject_kind": kind,
        "subject_id": subject_id,
        "user_id": None if item.subject is None else owners.get(item.subject),
        "message": item.message[:1000],
        "data": dict(item.data),
        "once_key": once,
    }


def _amount(value: int, unit: str) -> int | str:
    """Money as decimal text, so that no reader turns it into a float; everything else as it is."""
    return decimal_text(value) if unit in get_args(Currency) else value
