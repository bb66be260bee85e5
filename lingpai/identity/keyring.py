"""The keyring: the principals of the keys and access tokens in use, in memory, so that recognising one needs no database.

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
import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.interfaces import Use
from lingpai.identity.known_ids import KnownIds
from lingpai.identity.peppers import Peppers
from lingpai.identity.principals import LoadedPrincipal, principal_of_key, principal_of_token
from lingpai.ids import ID_LENGTH, credential_id
from lingpai.principal import Principal

logger = logging.getLogger("lingpai.identity")

_NO_HMAC: Final = bytes(32)  # what no credential has
_KEY: Final = b"sk-lp-"
_TOKEN: Final = b"at-lp-"
_ID_PLACE: Final = slice(6, 6 + ID_LENGTH)
_KIND_AND_ID: Final = slice(0, 6 + ID_LENGTH)
_MOST_SECOND_CHANCES: Final = 8
"""At most so many entries in use are spared per entry that comes, so that none has to wait long."""
_MOST_REVOKED: Final = 10_000


class IdFilter(Protocol):
    """Tells ids that nothing has."""

    def is_known(self, id_: bytes) -> bool:
        """Whether there may be something with this id."""


class CredentialStore(Protocol):
    """Where the keyring reads keys and tokens."""

    def key(self, key_id: str) -> Row[Any] | None:
        """The key's row joined with its owner and project, or None when there is no such key."""

    def access_token(self, token_id: str) -> Row[Any] | None:
        """The token's row joined with its owner, client and project, or None when there is no such token."""


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
        known_tokens: IdFilter | None = None,
        capacity: int = 100_000,
        garbage_capacity: int = 10_000,
    ) -> None:
        """Start empty; remember up to `capacity` principals and `garbage_capacity` credentials that are none."""
        self._store = store
        self._peppers = peppers
        self._known_ids = known_ids or KnownIds()
        self._known_tokens: IdFilter = known_tokens or KnownIds()
        self._keyed_hash = blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._capacity = capacity
        self._garbage_capacity = garbage_capacity
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._garbage: OrderedDict[bytes, None] = OrderedDict()
        self._stored: dict[bytes, _Stored] = {}
        self._look_up_numbers = count(1)
        self.look_ups = 0
        """How many keys were looked up in the database."""
        self._entries: dict[str, _Entry] = {}
        self._credentials_of_user: dict[str, set[str]] = {}
        self.generation = 0
        """Grows with every change to who may do what; what was read under another one may be stale. New access tokens
        change nothing: nobody has asked for them before."""
        self._revocations = 0
        self._revoked: set[bytes] = set()
        self._uses_of_gone: dict[tuple[str, str], Use] = {}
        self._uses_taken_until = 0.0

    @property
    def changes(self) -> int:
        """As `generation`, but without the tokens that were revoked one by one: they are known by their ids, so that a
        storm of them makes nobody read anything again.
        """
        return self.generation - self._revocations

    def find(self, token: bytes) -> Principal | None:
        """The principal remembered for `token`, or None when there is none in memory."""
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return self._known.get(keyed_hash.digest())

    def is_known_garbage(self, token: bytes) -> bool:
        """Whether `token` is certainly neither key nor access token, told without a look-up.

        Malformed, mistyped, with an id that none has, revoked lately, asked for before, or with a wrong secret for an id
        that was.
        """
        is_token = token.startswith(_TOKEN)
        ids: IdFilter = self._known_tokens if is_token else self._known_ids
        if not ids.is_known(token[_ID_PLACE]):  # first, because it is cheapest and catches floods
            return True
        if is_token and token[_ID_PLACE] in self._revoked:
            return True
        if not token.startswith((_KEY, _TOKEN)) or credential_id(token) is None:
            return True
        return self._index(token) in self._garbage or self._has_wrong_secret(token)

    def load(self, token: bytes) -> Principal | None:
        """The principal of `token` from the database, or None when it is none. Blocks: run it in a worker thread.

        An unknown id costs the same work as a wrong secret. A disabled or expired credential has a principal that says
        so.
        """
        as_of = self.changes
        id_ = credential_id(token)
        if id_ is None or not token.startswith((_KEY, _TOKEN)):
            return None
        self.look_ups = next(self._look_up_numbers)  # several threads come here
        is_key = token.startswith(_KEY)
        row = self._store.key(id_) if is_key else self._store.access_token(id_)
        version, stored = self._stored_hmac(row)
        # One HMAC and one comparison in every case, so that timing does not tell which ids exist.
        is_right = hmac.compare_digest(self._peppers.hmac(token, version), stored)
        if is_right and row is not None:
            return principal_of_key(row, as_of) if is_key else principal_of_token(row, as_of)
        if len(self._stored) >= self._garbage_capacity:
            self._stored.clear()  # rarely: it takes as many ids of real keys
        self._stored[token[_KIND_AND_ID]] = _Stored(as_of, version, stored)
        return None

    def remember(self, token: bytes, principal: Principal | None) -> None:
        """Remember what `load` found; None makes the token known garbage.

        Does nothing when something changed after the database was read: the next call will read again.
        """
        if principal is None:
            self._remember_garbage(token)
        elif not isinstance(principal, LoadedPrincipal) or self._is_current(principal):
            self._put(self._index(token), principal)

    def forget_key(self, key_id: str) -> None:
        """Drop the key's principal, because the key changed; or hear of a new key."""
        self._known_ids.add(key_id)
        self._forget(key_id)

    def forget_token(self, token_id: str) -> None:
        """Drop the principal of an access token, because it was revoked. It never comes back."""
        if len(self._revoked) < _MOST_REVOKED:
            self._revocations += 1
        else:  # a change like any other, because what is being read now may be of one of these
            self._revoked.clear()
        self._revoked.add(token_id.encode())
        self._forget(token_id)

    def forget_user(self, user_id: str) -> None:
        """Drop the principals of all keys and tokens of a user, because the user changed."""
        self.generation += 1
        for id_ in tuple(self._credentials_of_user.get(user_id, ())):
            self._forget(id_)

    def forget_client(self, client_id: str) -> None:
        """Drop the principals of all tokens of a client (`cl-lp-…`), because the client changed or they were revoked."""
        self._forget_all([each for each in self._known.values() if each.client_id == client_id])

    def forget_project(self, project_id: str) -> None:
        """Drop the principals of all keys and clients of a project, because the project changed.

        Looks at every principal in memory (a few milliseconds for 100,000): projects change rarely, and an index of
        them would cost memory for every key.
        """
        self._forget_all([each for each in self._known.values() if each.project_id == project_id])

    def principals(self) -> Iterable[Principal]:
        """Every principal in memory. The keyring must not change while you look."""
        return self._known.values()

    def take_uses(self) -> list[Use]:
        """The last use of every key and client used since this was asked before, for `Keys.touch` and `Clients.touch`."""
        since = self._uses_taken_until
        uses, self._uses_of_gone = self._uses_of_gone, {}
        for principal in self._known.values():
            if principal.last_used_at > since:
                _note_use(uses, principal)
        self._uses_taken_until = max((use.time for use in uses.values()), default=since)
        return list(uses.values())

    def _put(self, index: bytes, principal: Principal) -> None:
        id_ = principal.credential_id
        if id_ is None:
            raise ValueError("only keys and tokens can be remembered")
        if index not in self._known and len(self._known) >= self._capacity:
            self._make_room()
        self._known[index] = principal
        self._entries[id_] = _Entry(index, principal.last_used_at)
        self._credentials_of_user.setdefault(principal.user_id, set()).add(id_)

    def _forget(self, id_: str) -> None:
        self.generation += 1
        entry = self._entries.get(id_)
        if entry is not None:
            self._let_go(self._known.pop(entry.index))

    def _forget_all(self, principals: list[Principal]) -> None:
        self.generation += 1
        for principal in principals:
            self._forget(str(principal.credential_id))

    def _make_room(self) -> None:
        for _ in range(_MOST_SECOND_CHANCES):
            principal = next(iter(self._known.values()))
            entry = self._entries[str(principal.credential_id)]
            if principal.last_used_at <= entry.use_when_queued:
                break
            entry.use_when_queued = principal.last_used_at
            self._known.move_to_end(entry.index)
        self._let_go(self._known.popitem(last=False)[1])

    def _let_go(self, principal: Principal) -> None:
        if principal.last_used_at > self._uses_taken_until:
            _note_use(self._uses_of_gone, principal)
        id_ = str(principal.credential_id)
        del self._entries[id_]
        of_user = self._credentials_of_user[principal.user_id]
        of_user.discard(id_)
        if not of_user:
            del self._credentials_of_user[principal.user_id]

    def _remember_garbage(self, token: bytes) -> None:
        if len(self._garbage) >= self._garbage_capacity:
            self._garbage.popitem(last=False)
        self._garbage[self._index(token)] = None

    def _index(self, token: bytes) -> bytes:
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return keyed_hash.digest()

    def _has_wrong_secret(self, token: bytes) -> bool:
        stored = self._stored.get(token[_KIND_AND_ID])
        if stored is None or stored.as_of != self.changes:  # a new secret may have come since
            return False
        return not hmac.compare_digest(self._peppers.hmac(token, stored.version), stored.hmac)

    def _is_current(self, principal: LoadedPrincipal) -> bool:
        """Whether nothing has changed since it was read."""
        is_revoked = principal.token_id is not None and principal.token_id.encode() in self._revoked
        return principal.as_of == self.changes and not is_revoked

    def _stored_hmac(self, row: Row[Any] | None) -> tuple[int, bytes]:
        if row is None or row.secret_hmac is None:
            return self._peppers.newest_version, _NO_HMAC
        if row.pepper_version not in self._peppers:
            logger.warning(
                "key %s was made with pepper version %d, which is missing", row.id, row.pepper_version
            )
            return self._peppers.newest_version, _NO_HMAC
        return row.pepper_version, row.secret_hmac


def _note_use(uses: dict[tuple[str, str], Use], principal: Principal) -> None:
    if principal.key_id is not None:
        use = Use("key", principal.key_id, principal.last_used_at, principal.last_used_ip)
    elif principal.client_id is not None:
        use = Use("client", principal.client_id, principal.last_used_at, principal.last_used_ip)
    else:
        return  # a token of a user's own: its family knows when it was refreshed
    before = uses.get(use[:2])
    if before is None or before.time <= use.time:
        uses[use[:2]] = use
