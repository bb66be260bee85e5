"""Refusals by policy, gathered before they are recorded: a client that knocks a thousand times a second leaves one record
a minute, and the trail cannot be flooded.

What is alike (credential, code, what was wanted, network) is one record with a count once its minute is over. Memory is
bounded: of one credential so many different refusals are kept apart, and the rest by its code alone; beyond `MOST` of all
credentials the rest is only counted, and the count recorded. Whoever has no credential is known by their network, and of
all of those together `MOST_UNKNOWN` are kept apart, and the rest by its code alone. Unknown credentials are counted and never
recorded: anybody can send any number of them. What was gathered and not written when the process was killed is lost.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy.exc import DBAPIError

from lingpai.audit.actors import Actor, actor_of
from lingpai.audit.canonical import time_text
from lingpai.audit.service import Circumstances, SqlTrail
from lingpai.errors import LingpaiError
from lingpai.storage.database import Database
from lingpai.storage.trail import UNKNOWN_CREDENTIAL, Deed, PolicyRefusal
from lingpai.telemetry.logs import mask
from lingpai.web.origin import Origin

log = logging.getLogger("lingpai.audit")

WINDOW_S: Final = 60.0
MOST: Final = 1000
MOST_PER_CREDENTIAL: Final = 20
MOST_UNKNOWN: Final = 50
"""Of all whom nobody knows together: they must not crowd out those who are known, and there can be any number of them."""
MOST_PER_UNKNOWN: Final = 5
"""Of one network from which somebody unknown comes."""
MOST_REFERENCES: Final = 5
_BATCH: Final = 100
_FROM_SOCKET: Final = Origin(kind="socket")

Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Gathered:
    """Refusals that are alike. `first` has the circumstances of the first of them."""

    actor: Actor
    first: PolicyRefusal
    since: float
    until: float
    is_mixed: bool
    has_address: bool
    count: int = 0
    references: list[str] = field(default_factory=list)


class Refusals:
    """The refusals of one server. Belongs to the event loop; the methods that write do so in threads."""

    def __init__(
        self,
        database: Database,
        trail: SqlTrail,
        *,
        network_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`network_of` gives one text for all addresses that are one caller's (of IPv6, a whole network is)."""
        self._database = database
        self._trail = trail
        self._network_of = network_of
        self._clock = clock
        self._gathered: dict[Key, _Gathered] = {}
        self._kinds: Counter[str] = Counter()
        self._unknown = 0
        self._uncounted = 0
        self._writing = asyncio.Lock()
        self.unknown_credentials = 0
        """Requests with a credential that is none."""
        self.dropped = 0
        """Refusals that were only counted, there being too many different ones."""

    def note(self, refusal: PolicyRefusal) -> None:
        """A request was refused by policy. Never blocks and never raises."""
        if refusal.code == UNKNOWN_CREDENTIAL:
            self.unknown_credentials += 1
            return
        now = self._clock()
        gathered = self._find(refusal, now)
        if gathered is None:
            self._uncounted += 1
            self.dropped += 1
            return
        gathered.count += 1
        gathered.until = now
        if refusal.reference and len(gathered.references) < MOST_REFERENCES:
            reference = refusal.reference[:200]
            if reference not in gathered.references:
                gathered.references.append(reference)

    async def write_due(self) -> None:
        """Record those whose minute is over."""
        await self._write(before=self._clock() - WINDOW_S)

    async def write_all(self) -> None:
        """Record everything: when the server stops."""
        await self._write(before=float("inf"))

    def _find(self, refusal: PolicyRefusal, now: float) -> _Gathered | None:
        """Where a refusal belongs; None when there is no room for another one."""
        actor = actor_of(refusal.caller, _FROM_SOCKET)
        network = "" if refusal.address is None else self._network_of(refusal.address)
        exact, *mixed = _keys(refusal, actor, network)
        if exact in self._gathered:
            return self._gathered[exact]
        key, is_mixed = exact, False
        if refusal.caller is not None:
            if self._kinds[exact[0]] >= MOST_PER_CREDENTIAL:
                key, is_mixed = mixed[0], True
        elif self._kinds[exact[0]] >= MOST_PER_UNKNOWN and (
            mixed[0] in self._gathered or self._unknown < MOST_UNKNOWN
        ):
            key, is_mixed = mixed[0], True
        elif self._unknown >= MOST_UNKNOWN:
            key, is_mixed = mixed[-1], True
        if key in self._gathered:
            return self._gathered[key]
        if len(self._gathered) >= MOST:
            return None
        gathered = _Gathered(actor, refusal, now, now, is_mixed, has_address=not is_mixed or bool(key[4]))
        self._add(key, gathered)
        return gathered

    def _add(self, key: Key, gathered: _Gathered) -> None:
        self._kinds[key[0]] += 1
        self._unknown += gathered.actor.kind == "unknown"
        self._gathered[key] = gathered

    async def _write(self, *, before: float) -> None:
        async with self._writing:
            due = [key for key, found in self._gathered.items() if found.since <= before]
            for start in range(0, len(due), _BATCH):
                taken = {key: self._take(key) for key in due[start : start + _BATCH]}
                if not await self._wrote(partial(self._record, list(taken.values()))):
                    self._put_back(taken)
                    return
            uncounted = self._uncounted
            if uncounted and await self._wrote(partial(self._record_dropped, uncounted)):
                self._uncounted -= uncounted

    async def _wrote(self, write: Callable[[], None]) -> bool:
        # In a task of its own: cancelled while it writes, only the thread knows whether the records are there.
        writing = asyncio.create_task(asyncio.to_thread(write))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        except (LingpaiError, DBAPIError):
            log.warning("refusals wait in memory: the audit trail cannot be written")
            return False
        return True

    def _take(self, key: Key) -> _Gathered:
        self._kinds[key[0]] -= 1
        if not self._kinds[key[0]]:
            del self._kinds[key[0]]
        found = self._gathered.pop(key)
        self._unknown -= found.actor.kind == "unknown"
        return found

    def _put_back(self, taken: Mapping[Key, _Gathered]) -> None:
        for key, found in taken.items():
            later = self._gathered.get(key)
            if later is None:
                self._add(key, found)
            else:
                found.count += later.count
                found.until = later.until
                self._gathered[key] = found

    def _record(self, batch: Sequence[_Gathered]) -> None:
        with self._database.write(durable=False) as connection:
            for gathered in batch:
                self._trail.append(connection, gathered.actor, _deed(gathered), _circumstances(gathered))

    def _record_dropped(self, count: int) -> None:
        deed = Deed(action="refusals.drop", target_kind="trail", target_id="refusals", after={"count": count})
        with self._database.write(durable=False) as connection:
            self._trail.append(connection, Actor("server"), deed, Circumstances())


def _keys(refusal: PolicyRefusal, actor: Actor, network: str) -> list[Key]:
    """By what a refusal is alike to others: first by everything, then by less and less."""
    code = refusal.code
    if refusal.caller is None:
        who = f"unknown {network}"
        rest: list[Key] = [(who, code, "", "", network), ("unknown", code, "", "", "")]
    else:
        who = f"{actor.credential_kind} {actor.credential or actor.id}"
        rest = [(who, code, "", "", "")]
    return [(who, _reason(refusal), refusal.target_kind, refusal.target_id, network), *rest]


def _reason(refusal: PolicyRefusal) -> str:
    return f"{refusal.code}: {refusal.detail}" if refusal.detail else refusal.code


def _deed(gathered: _Gathered) -> Deed:
    first = gathered.first
    return Deed(
        action="access.refuse",
        target_kind="any" if gathered.is_mixed else first.target_kind,
        target_id="" if gathered.is_mixed else first.target_id,
        result="refused",
        reason=first.code if gathered.is_mixed else _reason(first),
        after={
            "count": gathered.count,
            "first": time_text(gathered.since),
            "last": time_text(gathered.until),
            "references": [mask(reference) for reference in gathered.references],
        },
    )


def _circumstances(gathered: _Gathered) -> Circumstances:
    first = gathered.first
    return Circumstances(
        address=first.address if gathered.has_address else None,
        user_agent=first.user_agent,
        request_id=first.request_id,
    )
