"""How many credentials one member may make: every one takes a row, a place in memory and a record of the audit trail.

Keys, clients, signing keys and new secrets of them count together, those that are refused for another reason too (OWASP API
Security 2023, API6). Administrators, who provision for everybody, are not held to it.
"""

import time
from collections.abc import Callable
from math import ceil
from threading import Lock
from typing import Final

from lingpai.errors import LingpaiError
from lingpai.principal import Principal

HOUR_S: Final = 3600.0
_TIDY_AT: Final = 10_000


class Minting:
    """So many an hour for each member: all of them at once, and then one whenever its share of the hour is over.

    Safe to use from any thread. What was made before a restart is not known after it.
    """

    def __init__(self, per_hour: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """None: any number."""
        self._interval = HOUR_S / per_hour if per_hour else 0.0
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when the whole hour's amount is there again, by user
        self._lock = Lock()

    def begin(self, caller: Principal) -> None:
        """Count one that `caller` is about to make. Raises LingpaiError `rate_limit_exceeded` when it is one too many."""
        if caller.is_admin or not self._interval:
            return
        now = self._clock()
        with self._lock:
            full_at = max(self._full_at.get(caller.user_id, now), now) + self._interval
            wait = full_at - now - HOUR_S
            if wait <= 1e-6:
                self._full_at[caller.user_id] = full_at
                if len(self._full_at) > _TIDY_AT:
                    self._full_at = {user: at for user, at in self._full_at.items() if at > now}
                return
        raise _too_many(round(HOUR_S / self._interval), max(1, ceil(wait)))


UNBOUNDED: Final = Minting()
"""For those who are not told otherwise."""


def _too_many(per_hour: int, wait_s: int) -> LingpaiError:
    return LingpaiError(
        "rate_limit_exceeded",
        f"You have made {per_hour} keys and other credentials in an hour, and more are not allowed. Go on in {wait_s} s, "
        "or ask an administrator.",
        headers={"retry-after": str(wait_s)},
    )
