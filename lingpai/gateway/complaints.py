"""What backends do wrong, in the log: once a minute for each at most, whatever they do to every call."""

import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger("lingpai.gateway")

EVERY_S: Final = 60.0


class Complaints:
    """Says the same of the same backend once a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only go forward."""
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}

    def about(self, backend: str, what: str, detail: str) -> None:
        """Warn that `backend` did `what`, a fixed text; `detail` is about this time."""
        now = self._clock()
        if now - self._said.get((backend, what), -EVERY_S) >= EVERY_S:
            self._said[backend, what] = now
            log.warning("backend %s %s (%s); said once a minute at most", backend, what, detail)
