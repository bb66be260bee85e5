"""Brings the meters of a subject into memory, exactly: waits for the history to be complete, reads it, attaches."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final, Generic, TypeVar

from lingpai.errors import LingpaiError
from lingpai.quotas.history import Snapshot
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import HistoryNeededError, MemoryLimiter
from lingpai.quotas.meter import Meter
from lingpai.quotas.under_way import CallUnderWay

_ATTEMPTS: Final = 3

Mark = TypeVar("Mark")


class StaleLimitsError(Exception):
    """The limits were changed while their history was being read. Look them up again."""


class MeterLoader(Generic[Mark]):
    """Loads meters; belongs to the event loop.

    `mark` answers a mark of what has been recorded up to now (the journal's position); `reached` waits, for as long as
    the settings allow, until the history holds all of it, and answers whether it does.
    """

    def __init__(
        self,
        limiter: MemoryLimiter,
        *,
        mark: Callable[[], Mark],
        reached: Callable[[Mark], Awaitable[bool]],
        under_way: Callable[[Subject], Sequence[CallUnderWay]] = lambda _: (),
    ) -> None:
        """`under_way` answers the calls of a subject that have not handed in their records yet. What is handed in
        during one turn of the loop has to be in the mark from the next turn on.
        """
        self._limiter = limiter
        self._mark = mark
        self._under_way = under_way
        self._changed: set[Subject] = set()
        self._reached = reached
        self._needed = mark()
        self._changes = self._marked_changes = 0
        limiter.on_forget = self.require_history_up_to_now

    def require_history_up_to_now(self) -> None:
        """From now on no history is read that lacks what is recorded by now. Call it when limits have changed."""
        self._needed = self._mark()

    def limits_changed(self, subject: Subject, *, began: float = inf) -> None:
        """The limits of `subject` are others now. Call it before the next `load`, on the event loop.

        `began` is when the change began (time.monotonic), where others may have seen it, and loaded meters, before this
        is called. Those do not know of the calls under way, and are made again.

        Calls under way were admitted by the old meters; the new ones must count them too. So the next load reads the
        history up to that moment, and adds those that are under way then. Where some of them end while it reads, it reads
        again; when that happens every time, what such calls held or were charged, whichever is more, counts beside it.
        """
        self._limiter.forget_made_since(subject, began)
        self._changes += 1
        if self._under_way(subject):
            self._changed.add(subject)

    async def load(
        self,
        subject: Subject,
        limits: tuple[str, ...],
        label: str,
        *,
        is_current: Callable[[], bool] = lambda: True,
    ) -> tuple[Meter, ...]:
        """The meters that hold `subject` to `limits`; at once when they are in memory.

        `is_current` is asked before anything is attached: limits that were changed while the history was read must
        not replace the new ones. Raises StaleLimitsError then.

        Raises LingpaiError `storage_unavailable` when the history does not become complete in time: without knowing
        what is used a limit could be exceeded, so the call is refused (fails closed).
        """
        snapshot: Snapshot | None = None
        counted: tuple[CallUnderWay, ...] = ()
        for attempt in range(_ATTEMPTS + 1):
            if not is_current():
                raise StaleLimitsError
            under_way, has_ended = self._as_of_now(subject, counted, snapshot)
            try:
                if has_ended and attempt < _ATTEMPTS:
                    # Whether the history has it, and with what it was charged, only one that is read now can tell.
                    raise HistoryNeededError
                meters = self._limiter.attach(subject, limits, snapshot, label=label, under_way=under_way)
            except HistoryNeededError:
                if attempt == _ATTEMPTS:
                    raise
                snapshot, counted = await self._read(subject, limits)
            else:
                self._changed.discard(subject)
                return meters
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _as_of_now(
        self, subject: Subject, counted: tuple[CallUnderWay, ...], snapshot: Snapshot | None
    ) -> tuple[list[CallUnderWay], bool]:
        """The calls that were counted with the snapshot, and whether some have ended since."""
        if not counted or snapshot is None:
            return [], False
        now = {call.identity for call in self._under_way(subject)}
        still = [call for call in counted if call.identity in now]
        ended = [call.ended(snapshot.read_at) for call in counted if call.identity not in now]
        return still + ended, bool(ended)

    async def _read(
        self, subject: Subject, limits: tuple[str, ...]
    ) -> tuple[Snapshot, tuple[CallUnderWay, ...]]:
        """The history, and the calls under way that are counted with it."""
        under_way: tuple[CallUnderWay, ...] = ()
        if subject in self._changed:
            # In this order: whoever hands in a record in this turn of the loop counts twice rather than not at all.
            under_way = tuple(self._under_way(subject))
            self._changes += 1
        needed = await self._needed_by_now()
        if not await self._reached(needed):
            raise LingpaiError(
                "storage_unavailable",
                f"What {subject[0]} `{subject[1]}` has used cannot be read yet: the usage records are being loaded. "
                "Try again in a few seconds.",
                headers={"retry-after": "5"},
            )
        held = tuple((call.admitted_at, call.held) for call in under_way)
        return await asyncio.to_thread(self._limiter.read_history, subject, limits, held), under_way

    async def _needed_by_now(self) -> Mark:
        """What the history must hold: also what was handed in, and not marked yet, when limits changed."""
        while self._marked_changes != self._changes:
            changes = self._changes
            await asyncio.sleep(0)
            self._needed, self._marked_changes = self._mark(), changes
        return self._needed
