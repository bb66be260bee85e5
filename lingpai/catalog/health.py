"""Which backends are away: an origin that cannot be reached, a local model whose process is being restarted."""

import time
from collections.abc import Callable
from typing import Final

from lingpai.catalog.interfaces import Backend

LOOK_AGAIN_S: Final = 5.0

Tell = Callable[[Backend, str | None, float], None]
"""Told of a backend that is away now and why, or (None) that is back after so many seconds."""


class BackendHealth:
    """Notices when a backend goes away and when it is back. Belongs to the event loop.

    A call that gets no connection makes its origin suspect only: an engine may be restarting, or too busy for a moment.
    Whoever looks at it then says `down` or `up`; while it is down it is looked at every few seconds.
    """

    def __init__(self, tell: Tell, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`tell` is called once for each change; `clock` gives seconds that only go forward."""
        self._tell = tell
        self._clock = clock
        self._suspects: set[str] = set()
        self._down_since: dict[str, float] = {}
        self._looked_at: dict[str, float] = {}

    def suspect(self, backend: Backend) -> None:
        """A call could not reach it. Workers are left out: their supervisor knows better."""
        if backend.kind != "worker" and backend.name not in self._down_since:
            self._suspects.add(backend.name)

    def due(self) -> set[str]:
        """The names of those that should be looked at now."""
        now = self._clock()
        again = {name for name, at in self._looked_at.items() if now - at >= LOOK_AGAIN_S}
        self._looked_at.update(dict.fromkeys(again, now))
        due, self._suspects = self._suspects | again, set()
        return due

    def down(self, backend: Backend, why: str) -> None:
        """It is away; `why` is a sentence for the operator."""
        if backend.name in self._down_since:
            return
        self._down_since[backend.name] = self._clock()
        if backend.kind != "worker":
            self._looked_at[backend.name] = self._clock()
        self._tell(backend, why, 0.0)

    def up(self, backend: Backend) -> None:
        """It is there."""
        self._looked_at.pop(backend.name, None)
        since = self._down_since.pop(backend.name, None)
        if since is not None:
            self._tell(backend, None, self._clock() - since)

    def forget(self, backend: Backend) -> None:
        """It is served no longer."""
        self._suspects.discard(backend.name)
        self._looked_at.pop(backend.name, None)
        self._down_since.pop(backend.name, None)
