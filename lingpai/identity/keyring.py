"""The keyring: the principals of the keys and access tokens in use, in memory, so that recognising one needs no database.

JWTs are held like any other token: by a hash of the whole, and known by their `jti`. Their signature takes the place of
the stored HMAC, and is verified where the database is read.

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

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, islice
from typing import Any, Final, Protocol

from sqlalchemy import Row

from lingpai.identity.interfaces import Use
from lingpai.identity.key_secrets import StoredSecrets, stored_secrets, stored_token_secret
from lingpai.identity.known_ids import KnownIds
from lingpai.identity.peppers import Peppers
from lingpai.identity.principals import LoadedPrincipal, principal_of_key, principal_of_token
from lingpai.identity.rehashing import API_KEYS, OLD_API_KEYS, Rehashes
from lingpai.ids import ID_LENGTH, credential_id
from lingpai.principal import Principal

_KEY: Final = b"sk-lp-"
_TOKEN: Final = b"at-lp-"
_JWT: Final = b"eyJ"
_OLD: Final = " old"
_ID_PLACE: Final = slice(6, 6 + ID_LENGTH)
_KIND_AND_ID: Final = slice(0, 6 + ID_LENGTH)
_SIGNED: Final = b"signed "  # before an id in place of a hash; no hash is as short
_MOST_SECOND_CHANCES: Final = 8
"""At most so many entries in use are spared per entry that comes, so that none has to wait long."""
_MOST_REVOKED: Final = 10_000


class IdFilter(Protocol):
    """Tells ids that nothing has."""

    def is_known(self, id_: bytes) -> bool:
        """Whether there may be something with this id."""


class Jwts(Protocol):
    """Access tokens in the form of JWTs (`JwtTokens`)."""

    def claimed_id(self, token: bytes) -> str | None:
        """The id of what looks like one; nothing is verified."""

    def verified_id(self, token: bytes) -> str | None:
        """The id of one that is of this server and good now. Blocks."""


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
    secrets: StoredSecrets


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
        jwts: Jwts | None = None,
        rehashes: Rehashes | None = None,
        capacity: int = 100_000,
        garbage_capacity: int = 10_000,
    ) -> None:
        """Start empty; remember up to `capacity` principals and `garbage_capacity` credentials that are none.

        `rehashes` hears of keys that were made under an older pepper. Without `jwts` every JWT is garbage.
        """
        self._store = store
        self._peppers = peppers
        self._jwts = jwts
        self._rehashes = rehashes
        self._newest_pepper_met = peppers.newest_version
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

    def holds(self, principal: Principal) -> bool:
        """Whether `principal` is in memory as it is: nothing about it has changed."""
        entry = self._entries.get(_holder(principal))
        return entry is not None and self._known[entry.index] is principal

    def find_id(self, key_id: str) -> Principal | None:
        """The principal remembered for the key with this id, however it was proven; None when there is none in memory."""
        entry = self._entries.get(key_id)
        return None if entry is None else self._known[entry.index]

    def is_known_garbage(self, token: bytes) -> bool:
        """Whether `token` is certainly neither key nor access token, told without a look-up.

        Malformed, mistyped, with an id that none has, revoked lately, asked for before, or with a wrong secret for an id
        that was.
        """
        if token.startswith(_JWT):
            return self._is_garbage_jwt(token)
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
        so; one that came with a key's secret before the last rotation expires when that does.
        """
        as_of = self.changes
        if token.startswith(_JWT):
            return self._load_jwt(token, as_of)
        id_ = credential_id(token)
        if id_ is None or not token.startswith((_KEY, _TOKEN)):
            return None
        self.look_ups = next(self._look_up_numbers)  # several threads come here
        if token.startswith(_KEY):
            row = self._store.key(id_)
            stored = stored_secrets(row, self._peppers)
        else:
            row = self._store.access_token(id_)
            stored = stored_token_secret(row, self._peppers)
        match = stored.match(token, self._peppers)
        if match is not None and row is not None:
            return self._principal(row, as_of, token, is_old_secret=match == "old")
        if len(self._stored) >= self._garbage_capacity:
            self._stored.clear()  # rarely: it takes as many ids of real keys
        self._stored[token[_KIND_AND_ID]] = _Stored(as_of, stored)
        return None

    def _is_garbage_jwt(self, token: bytes) -> bool:
        claimed = None if self._jwts is None else self._jwts.claimed_id(token)
        if claimed is None:
            return True
        id_ = claimed.encode()
        is_gone = not self._known_tokens.is_known(id_) or id_ in self._revoked
        return is_gone or self._index(token) in self._garbage

    def _load_jwt(self, token: bytes, as_of: int) -> LoadedPrincipal | None:
        self.look_ups = next(self._look_up_numbers)
        id_ = None if self._jwts is None else self._jwts.verified_id(token)
        row = None if id_ is None else self._store.access_token(id_)
        # An opaque one has a secret, which no signature stands for.
        is_jwt = row is not None and row.secret_hmac is None
        return principal_of_token(row, as_of) if row is not None and is_jwt else None

    def load_id(self, key_id: str) -> Principal | None:
        """The principal of a key whose owner has proven it otherwise, or None. Blocks: run it in a worker thread."""
        as_of = self.changes
        row = self._store.key(key_id)
        return None if row is None else principal_of_key(row, as_of)

    def remember_id(self, key_id: str, principal: Principal | None) -> None:
        """Remember what `load_id` found, as `remember` does."""
        if isinstance(principal, LoadedPrincipal) and self._is_current(principal):
            self._put(_SIGNED + key_id.encode(), principal)

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
        self.generation += 1
        for holder in (key_id, key_id + _OLD):
            self._forget(holder)

    def forget_token(self, token_id: str) -> None:
        """Drop the principal of an access token, because it was revoked. It never comes back."""
        self.generation += 1
        if len(self._revoked) < _MOST_REVOKED:
            self._revocations += 1
        else:  # a change like any other, because what is being read now may be of one of these
            self._revoked.clear()
        self._revoked.add(token_id.encode())
        self._forget(token_id)

    def forget_user(self, user_id: str) -> None:
        """Drop the principals of all keys and tokens of a user, and of the user's clients, because the user changed."""
        self.generation += 1
        for holder in tuple(self._credentials_of_user.get(user_id, ())):
            self._forget(holder)

    def forget_client(self, client_id: str) -> None:
        """Drop the principals of all tokens of a client (`cl-lp-…`), because the client changed or they were revoked."""
        self._forget_all([each for each in self._known.values() if each.client_id == client_id])

    def forget_project(self, project_id: str) -> None:
        """Drop the principals of all keys and clients of a project, because the project changed.

        Looks at every principal in memory (a few milliseconds for 100,000): projects change rarely, and an index of
        them would cost memory for every key.
        """
        self._forget_all([each for each in self._known.values() if each.project_id == project_id])

    def forget_jwts(self) -> None:
        """Drop the principals of all JWTs, because a key that signs them was ended: they are verified again."""
        self._forget_all([each for each in self._known.values() if getattr(each, "is_jwt", False)])

    def principals(self) -> Iterable[Principal]:
        """Every principal in memory. The keyring must not change while you look."""
        return self._known.values()

    def let_go_of_old_peppers(self, most: int = 200) -> None:
        """After a new pepper was made: drop up to `most` principals that were loaded before.

        Their next calls load them again, which moves their keys to the new pepper. Nobody's rights have changed, so what
        is being loaded meanwhile may be remembered.
        """
        newest = self._peppers.newest_version
        if self._newest_pepper_met == newest:
            return
        before = (key for key in self._known.values() if getattr(key, "pepper_version", newest) < newest)
        dropped = list(islice(before, most))
        for principal in dropped:
            self._known.pop(self._entries[_holder(principal)].index)
            self._let_go(principal)
        if len(dropped) < most:
            self._newest_pepper_met = newest

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
        if index not in self._known:
            self._forget(_holder(principal))  # one entry each: found by its token, or before that by its id
            if len(self._known) >= self._capacity:
                self._make_room()
        self._known[index] = principal
        holder = _holder(principal)
        self._entries[holder] = _Entry(index, principal.last_used_at)
        for user_id in _users_of(principal):
            self._credentials_of_user.setdefault(user_id, set()).add(holder)

    def _forget(self, holder: str) -> None:
        entry = self._entries.get(holder)
        if entry is not None:
            self._let_go(self._known.pop(entry.index))

    def _forget_all(self, principals: list[Principal]) -> None:
        self.generation += 1
        for principal in principals:
            self._forget(_holder(principal))

    def _make_room(self) -> None:
        for _ in range(_MOST_SECOND_CHANCES):
            principal = next(iter(self._known.values()))
            entry = self._entries[_holder(principal)]
            if principal.last_used_at <= entry.use_when_queued:
                break
            entry.use_when_queued = principal.last_used_at
            self._known.move_to_end(entry.index)
        self._let_go(self._known.popitem(last=False)[1])

    def _let_go(self, principal: Principal) -> None:
        if principal.last_used_at > self._uses_taken_until:
            _note_use(self._uses_of_gone, principal)
        holder = _holder(principal)
        del self._entries[holder]
        for user_id in _users_of(principal):
            of_user = self._credentials_of_user[user_id]
            of_user.discard(holder)
            if not of_user:
                del self._credentials_of_user[user_id]

    def _remember_garbage(self, token: bytes) -> None:
        if len(self._garbage) >= self._garbage_capacity:
            self._garbage.popitem(last=False)
        self._garbage[self._index(token)] = None

    def _principal(self, row: Row[Any], as_of: int, token: bytes, *, is_old_secret: bool) -> LoadedPrincipal:
        if token.startswith(_TOKEN):
            return principal_of_token(row, as_of)
        if self._rehashes is not None:
            if is_old_secret:
                place, version, stored = OLD_API_KEYS, row.old_pepper_version, row.old_secret_hmac
            else:
                place, version, stored = API_KEYS, row.pepper_version, row.secret_hmac
            self._rehashes.note(place, row.id, token, version=version, stored=stored)
        principal = principal_of_key(row, as_of, is_old_secret=is_old_secret)
        principal.pepper_version = self._peppers.newest_version
        return principal

    def _index(self, token: bytes) -> bytes:
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(token)
        return keyed_hash.digest()

    def _has_wrong_secret(self, token: bytes) -> bool:
        stored = self._stored.get(token[_KIND_AND_ID])
        if stored is None or stored.as_of != self.changes:  # a new secret may have come since
            return False
        secrets = stored.secrets
        return secrets.can_be_compared(self._peppers) and secrets.match(token, self._peppers) is None

    def _is_current(self, principal: LoadedPrincipal) -> bool:
        """Whether nothing has changed since it was read."""
        is_revoked = principal.token_id is not None and principal.token_id.encode() in self._revoked
        return principal.as_of == self.changes and not is_revoked


def _holder(principal: Principal) -> str:
    """What entries are kept by: the credential's id, and another name for who comes with the old secret of a key."""
    id_ = str(principal.credential_id)
    return id_ + _OLD if _has_old_secret(principal) else id_


def _users_of(principal: Principal) -> set[str]:
    """Whose changes concern it: for whom it acts, and the owner of its client."""
    owner_id = principal.client_owner_id if isinstance(principal, LoadedPrincipal) else None
    return {principal.user_id} if owner_id is None else {principal.user_id, owner_id}


def _has_old_secret(principal: Principal) -> bool:
    return isinstance(principal, LoadedPrincipal) and principal.is_old_secret


def _note_use(uses: dict[tuple[str, str], Use], principal: Principal) -> None:
    if principal.key_id is not None:
        is_old = _has_old_secret(principal)
        use = Use("key", principal.key_id, principal.last_used_at, principal.last_used_ip, is_old)
    elif principal.client_id is not None:
        use = Use("client", principal.client_id, principal.last_used_at, principal.last_used_ip)
    else:
        return  # a token of a user's own: its family knows when it was refreshed
    of = use.kind, _holder(principal) if use.kind == "key" else use.id
    before = uses.get(of)
    if before is None or before.time <= use.time:
        uses[of] = use
