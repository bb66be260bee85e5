"""The queue before a function: so many calls at once, so many waiting, and a clear word to the rest."""

import asyncio
import contextlib
import math
from collections import deque
from typing import Final

from lingpai.errors import LingpaiError

LONGEST_RETRY_S: Final = 60
_WEIGHT: Final = 0.2


class Gate:
    """Lets `size` calls through at once; up to `most_waiting` wait, in the order they came. None is no bound."""

    def __init__(self, size: int | None, *, most_waiting: int, name: str) -> None:
        self._free: float = math.inf if size is None else size
        self._size = size or 1
        self._most_waiting = most_waiting
        self._name = name
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._pace = Pace()

    async def enter(self) -> None:
        """Wait for one's turn; `leave` must follow. Raises LingpaiError `backend_unavailable` when too many wait."""
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiters) >= self._most_waiting:
            raise busy(
                self._name, len(self._waiters), self._pace.retry_after(len(self._waiters) / self._size)
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on()  # the turn came in the same moment
            with contextlib.suppress(ValueError):
                self._waiters.remove(turn)
            raise

    def leave(self, seconds: float) -> None:
        """The call that entered is over; it ran for `seconds`."""
        self._pace.learn(seconds)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Pace:
    """How long calls take of late, and so when it is worth to come back."""

    def __init__(self) -> None:
        self._average_s = 0.0

    def learn(self, seconds: float) -> None:
        """One more call took `seconds`."""
        self._average_s += (seconds - self._average_s) * (_WEIGHT if self._average_s else 1.0)

    def retry_after(self, rounds: float) -> int:
        """Whole seconds, 1 to 60, until calls have been made `rounds` times one after the other."""
        return min(max(1, math.ceil(self._average_s * rounds)), LONGEST_RETRY_S)


def busy(name: str, waiting: int, retry_after: int) -> LingpaiError:
    """The refusal of a model whose queue is full."""
    return LingpaiError(
        "backend_unavailable",
        f"`{name}` is busy: {waiting} calls wait already. Try again in {retry_after} s.",
        headers={"retry-after": str(retry_after)},
    )
