"""The clients that get tokens, in memory, so that authenticating one needs no database."""

import asyncio
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.known_ids import KnownIds
from lingpai.identity.oauth.client_store import client_of
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.peppers import Peppers
from lingpai.identity.rehashing import CLIENT_SECRETS, OLD_CLIENT_SECRETS, Rehashes
from lingpai.principal import Network, Role

_NO_HMAC: Final = bytes(32)  # what no secret has


class ClientReader(Protocol):
    """Where clients are read."""

    def client(self, id_: str) -> Row[Any] | None:
        """The client's row joined with its owner and project, or None. Blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownClient:
    """A client and what its secrets are recognised by."""

    client: Client
    role: Role
    networks: tuple[Network, ...]
    secrets: tuple[tuple[int, bytes, float | None], ...] = field(repr=False)
    """Pepper version, HMAC and end of each secret, the newest first; none for a public client."""


class KnownClients:
    """A bounded memory of clients, for the event loop. Whatever changes in identity empties it.

    Ids that no client has are told without a look-up, so that nobody can keep the database busy with them.
    """

    def __init__(
        self,
        reader: ClientReader,
        peppers: Peppers,
        *,
        generation: Callable[[], int],
        ids: KnownIds | None = None,
        rehashes: Rehashes | None = None,
        capacity: int = 10_000,
    ) -> None:
        """`generation` grows with every change: what was read under another one may be stale. `ids` are those of all
        clients; without them each counts as there. `rehashes` hears of secrets that were made under an older pepper.
        """
        self._reader = reader
        self._peppers = peppers
        self._generation = generation
        self._rehashes = rehashes
        self._ids = ids or KnownIds()
        self._capacity = capacity
        self._known: OrderedDict[str, tuple[int, KnownClient | None]] = OrderedDict()

    @property
    def has_all_ids(self) -> bool:
        """Whether `may_exist` can tell."""
        return self._ids.is_filled

    def may_exist(self, id_: str) -> bool:
        """Whether there is, or was, a client with this id; False as well for one that is known to be deleted."""
        is_gone = self._known.get(id_) == (self._generation(), None)
        return self._ids.is_known(id_.encode()) and not is_gone

    def find(self, id_: str) -> KnownClient | None:
        """The client in memory with this id (what follows `cl-lp-`), or None."""
        found = self._known.get(id_)
        if found is None or found[0] != self._generation() or found[1] is None:
            return None
        # A secret may have moved to another pepper since, and this one been retired.
        return found[1] if all(version in self._peppers for version, _, _ in found[1].secrets) else None

    async def load(self, id_: str) -> KnownClient | None:
        """The client in the database with this id, or None."""
        generation = self._generation()
        row = await asyncio.to_thread(self._reader.client, id_)
        known = None if row is None else _known(row)
        if id_ not in self._known and len(self._known) >= self._capacity:
            self._known.popitem(last=False)
        self._known[id_] = generation, known
        return known

    def has_secret(self, known: KnownClient | None, secret: bytes, now: float) -> bool:
        """Whether `secret` is one of the client's that works now. For no client, it takes as long to say no."""
        secrets = () if known is None else known.secrets
        is_right = False
        for version, stored, ends_at in secrets or ((self._peppers.newest_version, _NO_HMAC, None),):
            if not self._peppers.learn(version):
                continue
            is_same = hmac.compare_digest(self._peppers.hmac(secret, version), stored)
            is_right |= is_same and (ends_at is None or now < ends_at)
            if is_same and known is not None and self._rehashes is not None:
                place = CLIENT_SECRETS if ends_at is None else OLD_CLIENT_SECRETS
                self._rehashes.note(place, known.client.id, secret, version=version, stored=stored)
        return is_right and bool(secrets)


def _known(row: Row[Any]) -> KnownClient:
    secrets = [(row.pepper_version, row.secret_hmac, None)] if row.secret_hmac is not None else []
    if row.old_secret_hmac is not None:
        secrets.append((row.old_pepper_version, row.old_secret_hmac, row.old_expires_at))
    return KnownClient(
        client=client_of(row),
        role=row.role,
        networks=tuple(ipaddress.ip_network(network) for network in row.allowed_ips),
        secrets=tuple(secrets),
    )
