"""Brings the meters of a key or user into memory, exactly: waits for the history to be complete, reads it, attaches."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from lingpai.errors import LingpaiError
from lingpai.quotas.history import Snapshot
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import HistoryNeededError, MemoryLimiter
from lingpai.quotas.meter import Meter

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
        self, limiter: MemoryLimiter, *, mark: Callable[[], Mark], reached: Callable[[Mark], Awaitable[bool]]
    ) -> None:
        self._limiter = limiter
        self._mark = mark
        self._reached = reached
        self._needed = mark()
        limiter.on_forget = self.require_history_up_to_now

    def require_history_up_to_now(self) -> None:
        """From now on no history is read that lacks what is recorded by now. Call it when limits have changed."""
        self._needed = self._mark()

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
        for attempt in range(_ATTEMPTS + 1):
            if not is_current():
                raise StaleLimitsError
            try:
                return self._limiter.attach(subject, limits, snapshot, label=label)
            except HistoryNeededError:
                if attempt == _ATTEMPTS:
                    raise
                snapshot = await self._read(subject, limits)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _read(self, subject: Subject, limits: tuple[str, ...]) -> Snapshot:
        if not await self._reached(self._needed):
            raise LingpaiError(
                "storage_unavailable",
                f"What {subject[0]} `{subject[1]}` has used cannot be read yet: the usage records are being loaded. "
                "Try again in a few seconds.",
                headers={"retry-after": "5"},
            )
        return await asyncio.to_thread(self._limiter.read_history, subject, limits)
