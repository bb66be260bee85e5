"""Which key ids there are, in so little memory that all of them fit: garbage with a right checksum needs no look-up.

The checksum of a credential is public, so anybody can make as many well-formed keys as they like. Their ids are told
from those of real keys by a table of 32-bit fingerprints: 8 bytes per key at the most, so 8 MB for a million keys, and
one in several hundred million unknown ids is taken for a known one, which costs a look-up and nothing else. The hash is
Python's own for bytes (SipHash, keyed anew in every process), so nobody can choose ids that collide.

The table is filled in the background, after the server is ready. Until then every id counts as known; see `LookUps`.
"""

import logging
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from sqlalchemy import func, select

from lingpai.identity.tables import api_keys
from lingpai.storage.database import Database

logger = logging.getLogger("lingpai.identity")

_SMALLEST: Final = 256
_FULL: Final = 0.6
"""How much of a table may be taken; a search for an id that is not there looks at about four slots then."""
_LARGE: Final = 100_000
_BATCH: Final = 500
_NOTHING_S: Final = 1e-6
_PAUSE_S: Final = 0.002
"""Between two batches of the background thread: callers shall not wait for the interpreter."""


class IdSource(Protocol):
    """Where the ids are read."""

    def key_ids(self) -> Iterator[str]:
        """The ids of all keys, deleted ones too, in any order."""

    def count_keys(self) -> int:
        """About how many those are."""


class SqlIds:
    """Reads ids from the database, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_ids(self) -> Iterator[str]:
        """The ids of all keys, deleted ones too: leaving those out would make the index useless for this."""
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=_BATCH).execute(select(api_keys.c.id))
            yield from rows.scalars()

    def count_keys(self) -> int:
        """How many there are."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(api_keys)).scalar_one()


class _Table:
    """A hash table of fixed size with open addressing; 0 marks an empty slot."""

    __slots__ = ("_most", "_slots", "count")

    def __init__(self, capacity: int) -> None:
        self._slots = array("I", [0]) * int(capacity / _FULL + 1)
        self._most = int(len(self._slots) * _FULL)
        self.count = 0

    @property
    def is_full(self) -> bool:
        return self.count >= self._most

    def add(self, hashed: int) -> None:
        slots, place = self._slots, hashed % len(self._slots)
        fingerprint = hashed >> 29 & 0xFFFFFFFF or 1
        while slots[place]:
            if slots[place] == fingerprint:
                return
            place = place + 1 if place + 1 < len(slots) else 0
        slots[place] = fingerprint
        self.count += 1

    def __contains__(self, hashed: int) -> bool:
        slots, place = self._slots, hashed % len(self._slots)
        fingerprint = hashed >> 29 & 0xFFFFFFFF or 1
        while found := slots[place]:
            if found == fingerprint:
                return True
            place = place + 1 if place + 1 < len(slots) else 0
        return False


class KnownIds:
    """The ids of all keys. Everything but `fill` belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._tables: list[_Table] | None = None
        self._new: set[bytes] = set()
        self._filled: list[_Table] | None = None

    @property
    def is_filled(self) -> bool:
        """Whether `fill` is done."""
        return self._tables is not None or self._filled is not None

    def is_known(self, key_id: bytes) -> bool:
        """Whether there is, or was, a key with this id. Everything counts as known until `fill` is done."""
        tables = self._tables
        if tables is None:
            if self._filled is None:
                return True
            tables = self._take_over(self._filled)
        hashed = hash(key_id)
        return any(hashed in table for table in tables) if len(tables) > 1 else hashed in tables[0]

    def add(self, key_id: str) -> None:
        """A key was made, or has changed: call it for every such event, of this process and of others."""
        if self._tables is None:
            # The background thread may be at work on its tables; whatever is new meanwhile is added afterwards.
            self._new.add(key_id.encode())
        else:
            _add(self._tables, hash(key_id.encode()))

    def fill(self, source: IdSource, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Read all ids. Blocks: run it in a thread of its own, once, when `add` already hears of new keys."""
        tables = [_Table(source.count_keys() * 11 // 10 + _SMALLEST)]
        for number, key_id in enumerate(source.key_ids()):
            _add(tables, hash(key_id.encode()))
            if number % _BATCH == _BATCH - 1:
                pause(_PAUSE_S)
        self._filled = tables

    def _take_over(self, tables: list[_Table]) -> list[_Table]:
        for key_id in self._new:
            _add(tables, hash(key_id))
        self._new.clear()
        self._tables = tables
        return tables


def _add(tables: list[_Table], hashed: int) -> None:
    if any(hashed in table for table in tables):
        return
    if tables[-1].is_full:
        count = sum(table.count for table in tables)
        # Few tables where that costs little memory, little memory where tables are large. A restart makes them one.
        tables.append(_Table(count if count < _LARGE else count // 4))
    tables[-1].add(hashed)


def fill_in_background(known_ids: KnownIds, source: IdSource) -> threading.Thread:
    """Start the thread that fills `known_ids`. It does not keep the process from ending."""

    def fill() -> None:
        try:
            known_ids.fill(source)
        except (
            Exception
        ):  # the outermost edge of a thread: without the ids all works, with a bounded rate of look-ups
            logger.exception(
                "the ids of keys could not be read; unknown keys will be looked up, at a bounded rate"
            )

    thread = threading.Thread(target=fill, name="lingpai-key-ids", daemon=True)
    thread.start()
    return thread


class LookUps:
    """How often keys that are none may be looked up: a little for each address, and not much by all together.

    Only failures count, so nobody is refused for using many good keys; and only calls whose key is not in memory are
    refused, so no failure of some hurts those who are known. An address is any text that stands for a caller: of IPv6
    addresses those in front say which are one caller's (`lane.doorman.network_of`).
    """

    def __init__(
        self,
        *,
        per_s: float = 5.0,
        burst: int = 20,
        all_per_s: float = 200.0,
        all_burst: int = 1000,
        most_addresses: int = 10_000,
    ) -> None:
        """`per_s` and `burst` are for each address, `all_per_s` and `all_burst` for all of them together."""
        self._interval, self._burst_s = 1 / per_s, burst / per_s
        self._all_interval, self._all_burst_s = 1 / all_per_s, all_burst / all_per_s
        self._most_addresses = most_addresses
        self._free_at: OrderedDict[str, float] = OrderedDict()
        self._all_free_at = 0.0

    def wait_s(self, address: str, now: float) -> float:
        """How many seconds a caller from `address` has to wait before a look-up; 0 when it may begin."""
        own = self._free_at.get(address, 0.0) - now + self._interval - self._burst_s
        everybody = self._all_free_at - now + self._all_interval - self._all_burst_s
        wait = max(own, everybody)
        return wait if wait > _NOTHING_S else 0.0

    def failed(self, address: str, now: float) -> None:
        """A look-up for a caller from `address` found no key. `now` is any clock that is never set back."""
        self._all_free_at = max(self._all_free_at, now) + self._all_interval
        self._free_at[address] = max(self._free_at.get(address, 0.0), now) + self._interval
        self._free_at.move_to_end(address)
        if len(self._free_at) > self._most_addresses:
            self._free_at.popitem(last=False)
