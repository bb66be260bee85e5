"""What backends do wrong, in the log: once a minute for each at most, whatever they do to every call."""

import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger("lingpai.gateway")

EVERY_S: Final = 60.0


class Complaints:
    """Says the same of the same backend once a minute, the first time at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only go forward."""
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}
        self._unsaid: dict[tuple[str, str], int] = {}

    def about(self, backend: str, what: str, detail: str, request_id: bytes) -> None:
        """Warn that `backend` did `what`, one of few fixed texts; `detail` is about this time, and this call."""
        kind = backend, what
        now = self._clock()
        if now - self._said.get(kind, -EVERY_S) < EVERY_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        log.warning(
            "backend %s %s (%s); said once a minute at most%s",
            backend,
            what,
            detail,
            f", {unsaid} times left unsaid" if unsaid else "",
            extra={"request_id": request_id.decode()},
        )
