"""The sessions in use, in memory, so that a page which asks ten things at once costs one look at the database.

What is remembered holds for a second, and no longer than until a user, project or session changes in this process: so an
ended session, or a disabled user, is refused at once. There is one server process per data directory.
"""

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from lingpai.principal import Principal

HOLDS_S: Final = 1.0
CAPACITY: Final = 10_000

AsOf = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Remembered:
    proof: bytes
    caller: Principal
    as_of: AsOf
    until: float


class SessionMemory:
    """May be shared by threads. No secret stays in it: tokens are compared by a hash that is keyed anew in each process."""

    def __init__(
        self, generation: Callable[[], int], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`generation` grows with every change to a key, user or project."""
        self._generation = generation
        self._monotonic = monotonic
        self._changes = 0
        self._known: OrderedDict[str, _Remembered] = OrderedDict()
        self._lock = threading.Lock()
        self._keyed_hash = blake2b(key=secrets.token_bytes(32), digest_size=32)

    @property
    def as_of(self) -> AsOf:
        """Ask before reading the database, and hand it to `put`: what changed since makes the reading worthless."""
        return self._generation(), self._changes

    def find(self, session_id: str, token: bytes) -> Principal | None:
        """Who is signed in by `token`; None when that has to be looked up."""
        with self._lock:
            found = self._known.get(session_id)
        if found is None or found.as_of != self.as_of or self._monotonic() >= found.until:
            return None
        return found.caller if hmac.compare_digest(found.proof, self._proof(token)) else None

    def put(self, session_id: str, token: bytes, caller: Principal, as_of: AsOf) -> None:
        """Remember who was found under the right `token`."""
        remembered = _Remembered(self._proof(token), caller, as_of, self._monotonic() + HOLDS_S)
        with self._lock:
            self._known[session_id] = remembered
            self._known.move_to_end(session_id)
            if len(self._known) > CAPACITY:
                self._known.popitem(last=False)

    def forget(self, session_ids: Iterable[str]) -> None:
        """Sessions have ended. Call it after the commit."""
        with self._lock:
            self._changes += 1  # also for what is being read at this moment
            for session_id in session_ids:
                self._known.pop(session_id, None)

    def _proof(self, token: bytes) -> bytes:
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return keyed_hash.digest()
