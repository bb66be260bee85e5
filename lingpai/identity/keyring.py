"""The keyring: the principals of the keys in use, in memory, so that recognising a key needs no database.

On the event loop, `find` is the hot path. When it knows nothing, ask `is_known_garbage`; then run `load` in a worker
thread and hand its result to `remember`.

Garbage is told without a look-up: by its form and checksum, by an id that no key has (`known_ids`), and, where somebody
tries secrets for an id that exists, by the stored HMAC that the first look-up has brought along. So nobody can lock the
owner of a key out by trying: the right secret passes, however many wrong ones come before it. That an unknown id is
answered faster than a wrong secret tells an attacker nothing they can use: ids are public, and 71 random bits long.

Entries are found by a keyed hash (BLAKE2b, RFC 7693, under a key that lives and dies with the process) of the whole
credential, so no credential stays in memory. The stored HMAC-SHA-256 plays no part on the hot path: it is four times
slower, would be computed once per pepper version, and is only needed where the database is read.

When the memory is full, the entry that came first leaves, unless it was used since: then it queues again (“second
chance”). This keeps what is in use, like an LRU, and costs a hit nothing, because the gateway notes the time of the last
use anyway.
"""

import hmac
import ipaddress
import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.interfaces import KeyUse
from lingpai.identity.known_ids import KnownIds
from lingpai.identity.peppers import Peppers
from lingpai.identity.scopes import effective_scopes
from lingpai.ids import ID_LENGTH, credential_id
from lingpai.principal import Principal

logger = logging.getLogger("lingpai.identity")

_NO_HMAC: Final = bytes(32)  # what no credential has
_ID_PLACE: Final = slice(6, 6 + ID_LENGTH)
_SIGNED: Final = b"signed "  # before an id in place of a hash; no hash is as short
_MOST_SECOND_CHANCES: Final = 8
"""At most so many entries in use are spared per entry that comes, so that none has to wait long."""


class CredentialStore(Protocol):
    """Where the keyring reads keys."""

    def credential(self, key_id: str) -> Row[Any] | None:
        """The key's row joined with its owner and project, or None when there is no such key."""


@dataclass(slots=True, eq=False)
class _LoadedPrincipal(Principal):
    as_of: int = 0  # the keyring's change count when the database was read


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database holds for an id whose secret somebody got wrong."""

    as_of: int
    version: int
    hmac: bytes


@dataclass(slots=True)
class _Entry:
    index: bytes
    use_when_queued: float


class Keyring:
    """A bounded memory of principals. Only `load` may be called outside the event loop's thread."""

    def __init__(
        self,
        store: CredentialStore,
        peppers: Peppers,
        *,
        known_ids: KnownIds | None = None,
        capacity: int = 100_000,
        garbage_capacity: int = 10_000,
    ) -> None:
        """Start empty; remember up to `capacity` principals and `garbage_capacity` credentials that are none."""
        self._store = store
        self._peppers = peppers
        self._known_ids = known_ids or KnownIds()
        self._keyed_hash = blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._capacity = capacity
        self._garbage_capacity = garbage_capacity
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._garbage: OrderedDict[bytes, None] = OrderedDict()
        self._stored: dict[str, _Stored] = {}
        self._look_up_numbers = count(1)
        self.look_ups = 0
        """How many keys were looked up in the database."""
        self._entries: dict[str, _Entry] = {}
        self._keys_of_user: dict[str, set[str]] = {}
        self.generation = 0
        """Grows with every change to a key, project or user: what was read under another one may be stale."""
        self._uses_of_gone: dict[str, KeyUse] = {}
        self._uses_taken_until = 0.0

    def find(self, token: bytes) -> Principal | None:
        """The principal remembered for `token`, or None when there is none in memory."""
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return self._known.get(keyed_hash.digest())

    def find_id(self, key_id: str) -> Principal | None:
        """The principal remembered for the key with this id, however it was proven; None when there is none in memory."""
        entry = self._entries.get(key_id)
        return None if entry is None else self._known[entry.index]

    def is_known_garbage(self, token: bytes) -> bool:
        """Whether `token` is certainly no key, told without a look-up.

        Malformed, mistyped, with an id that no key has, asked for before, or with a wrong secret for an id that was.
        """
        if not self._known_ids.is_known(token[_ID_PLACE]):  # first, because it is cheapest and catches floods
            return True
        key_id = credential_id(token)
        return key_id is None or self._index(token) in self._garbage or self._has_wrong_secret(key_id, token)

    def load(self, token: bytes) -> Principal | None:
        """The principal of `token` from the database, or None when it is no key. Blocks: run it in a worker thread.

        An unknown id costs the same work as a wrong secret. A disabled or expired key has a principal that says so.
        """
        as_of = self.generation
        key_id = credential_id(token)
        if key_id is None:
            return None
        self.look_ups = next(self._look_up_numbers)  # several threads come here
        row = self._store.credential(key_id)
        version, stored = self._stored_hmac(row)
        # One HMAC and one comparison in every case, so that timing does not tell which ids exist.
        is_right = hmac.compare_digest(self._peppers.hmac(token, version), stored)
        if is_right and row is not None:
            return _principal(row, as_of)
        if len(self._stored) >= self._garbage_capacity:
            self._stored.clear()  # rarely: it takes as many ids of real keys
        self._stored[key_id] = _Stored(as_of, version, stored)
        return None

    def load_id(self, key_id: str) -> Principal | None:
        """The principal of a key whose owner has proven it otherwise, or None. Blocks: run it in a worker thread."""
        as_of = self.generation
        row = self._store.credential(key_id)
        return None if row is None else _principal(row, as_of)

    def remember_id(self, key_id: str, principal: Principal | None) -> None:
        """Remember what `load_id` found, as `remember` does."""
        if isinstance(principal, _LoadedPrincipal) and principal.as_of == self.generation:
            self._put(_SIGNED + key_id.encode(), principal)

    def remember(self, token: bytes, principal: Principal | None) -> None:
        """Remember what `load` found; None makes the token known garbage.

        Does nothing when a key, project or user changed after the database was read: the next call will read again.
        """
        if principal is None:
            self._remember_garbage(token)
        elif not isinstance(principal, _LoadedPrincipal) or principal.as_of == self.generation:
            self._put(self._index(token), principal)

    def forget_key(self, key_id: str) -> None:
        """Drop the key's principal, because the key changed; or hear of a new key."""
        self.generation += 1
        self._known_ids.add(key_id)
        entry = self._entries.get(key_id)
        if entry is not None:
            self._let_go(self._known.pop(entry.index))

    def forget_user(self, user_id: str) -> None:
        """Drop the principals of all keys of a user, because the user changed."""
        self.generation += 1
        for key_id in tuple(self._keys_of_user.get(user_id, ())):
            self.forget_key(key_id)

    def forget_project(self, project_id: str) -> None:
        """Drop the principals of all keys of a project, because the project changed.

        Looks at every principal in memory (a few milliseconds for 100,000): projects change rarely, and an index of
        them would cost memory for every key.
        """
        self.generation += 1
        keys = [found.key_id for found in self._known.values() if found.project_id == project_id]
        for key_id in keys:
            self.forget_key(str(key_id))

    def principals(self) -> Iterable[Principal]:
        """Every principal in memory. The keyring must not change while you look."""
        return self._known.values()

    def take_uses(self) -> list[KeyUse]:
        """The last use of every key used since this was asked before, for `Keys.touch`."""
        since = self._uses_taken_until
        used = [principal for principal in self._known.values() if principal.last_used_at > since]
        uses = self._uses_of_gone | {use.key_id: use for use in map(_last_use, used)}
        self._uses_of_gone = {}
        self._uses_taken_until = max((use.time for use in uses.values()), default=since)
        return list(uses.values())

    def _put(self, index: bytes, principal: Principal) -> None:
        if principal.key_id is None:
            raise ValueError("only keys can be remembered")
        if index not in self._known:
            self._let_go_of_other_entry(principal.key_id)
            if len(self._known) >= self._capacity:
                self._make_room()
        self._known[index] = principal
        self._entries[principal.key_id] = _Entry(index, principal.last_used_at)
        self._keys_of_user.setdefault(principal.user_id, set()).add(principal.key_id)

    def _let_go_of_other_entry(self, key_id: str) -> None:
        """A key has one entry, so that a change to it is never missed: found by its token, or before that by its id."""
        entry = self._entries.get(key_id)
        if entry is not None:
            self._let_go(self._known.pop(entry.index))

    def _make_room(self) -> None:
        for _ in range(_MOST_SECOND_CHANCES):
            principal = next(iter(self._known.values()))
            entry = self._entries[str(principal.key_id)]
            if principal.last_used_at <= entry.use_when_queued:
                break
            entry.use_when_queued = principal.last_used_at
            self._known.move_to_end(entry.index)
        self._let_go(self._known.popitem(last=False)[1])

    def _let_go(self, principal: Principal) -> None:
        use = _last_use(principal)
        if use.time > self._uses_taken_until:
            self._uses_of_gone[use.key_id] = use
        del self._entries[use.key_id]
        keys = self._keys_of_user[principal.user_id]
        keys.discard(use.key_id)
        if not keys:
            del self._keys_of_user[principal.user_id]

    def _remember_garbage(self, token: bytes) -> None:
        if len(self._garbage) >= self._garbage_capacity:
            self._garbage.popitem(last=False)
        self._garbage[self._index(token)] = None

    def _index(self, token: bytes) -> bytes:
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return keyed_hash.digest()

    def _has_wrong_secret(self, key_id: str, token: bytes) -> bool:
        stored = self._stored.get(key_id)
        if stored is None or stored.as_of != self.generation:  # a new secret may have come since
            return False
        return not hmac.compare_digest(self._peppers.hmac(token, stored.version), stored.hmac)

    def _stored_hmac(self, row: Row[Any] | None) -> tuple[int, bytes]:
        if row is None or row.secret_hmac is None:
            return self._peppers.newest_version, _NO_HMAC
        if row.pepper_version not in self._peppers:
            logger.warning(
                "key %s was made with pepper version %d, which is missing", row.id, row.pepper_version
            )
            return self._peppers.newest_version, _NO_HMAC
        return row.pepper_version, row.secret_hmac


def _last_use(principal: Principal) -> KeyUse:
    return KeyUse(str(principal.key_id), principal.last_used_at, principal.last_used_ip)


def _principal(row: Row[Any], as_of: int) -> Principal:
    return _LoadedPrincipal(
        user_id=row.user_id,
        user_name=row.user_name,
        role=row.role,
        key_id=row.id,
        key_name=row.name,
        scopes=effective_scopes(row.scopes, row.role),
        models=tuple(row.models),
        allowed_ips=tuple(ipaddress.ip_network(network) for network in row.allowed_ips),
        key_limits=tuple(row.limits),
        user_limits=tuple(row.user_limits),
        project_id=row.project_id or "",
        project_name=row.project_name,
        project_limits=tuple(row.project_limits or ()),
        expires_at=row.expires_at,
        created_at=row.created_at,
        disabled=row.disabled_at is not None or row.user_disabled_at is not None,
        signature_required=bool(row.signature_required),
        last_used_at=row.last_used_at or 0.0,
        last_used_ip=row.last_used_ip,
        as_of=as_of,
    )
