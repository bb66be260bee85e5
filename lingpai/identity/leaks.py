"""Credentials that somebody has found where they should not be: what still works of them ends at once.

Anybody may report, so nothing in the answer depends on what was reported. Each kind of credential has a `Finder`; here is
that of API keys; those of tokens and client secrets, signing keys, sessions and invitations are in their folders.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import Connection

from lingpai.identity.interfaces import LEAKED, ApiKey, OnChange
from lingpai.identity.key_secrets import Match, stored_secrets
from lingpai.identity.oauth.jwt_tokens import find_jwts
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import KeyView
from lingpai.identity.signing.interfaces import SigningKey
from lingpai.identity.signing.schemas import SigningKeyView
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.store import SqlCredentialStore, SqlKeyStore, key_of
from lingpai.ids import credential_id, find_credentials
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

MOST_REPORTED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Something that worked and was reported. `what` completes “… was reported as leaked”, `done` says what became of it.

    `about` is whose owner is told (kind and id), where that is not the credential itself, as when it is gone now.
    `tokens` are the ids of the access tokens that ended.
    """

    kind: str
    id: str
    what: str
    done: str
    about: tuple[str, str] | None = None
    tokens: tuple[str, ...] = ()


class Finder(Protocol):
    """Knows one kind of credential. A `token` has the right form, and a checksum that is right unless it is a JWT; `now` is in Unix seconds."""

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """Whether `token` is of use to anybody, or will be if somebody makes a mistake."""

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """Make `token` useless and record it, in the caller's transaction; None when it was useless before."""

    def tell(self, leak: Leak, began: float) -> None:
        """After the commit: let nobody go on with what is in memory. `began` is when that was (time.monotonic)."""


class LeakReports:
    """Takes reports of leaked credentials."""

    def __init__(
        self,
        database: Database,
        finders: Mapping[str, Finder],
        *,
        on_leak: Callable[[Leak], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`finders` are by how their credentials begin (``sk-lp-``); `on_leak` is told of each leak after it was stored."""
        self._database = database
        self._finders = {prefix.encode(): finder for prefix, finder in finders.items()}
        self._on_leak = on_leak
        self._clock = clock

    def take(self, tokens: Iterable[bytes]) -> None:
        """End those of `tokens` that work. Blocks."""
        working = self.working(tokens)
        if working:
            self.end(working)

    def end(self, working: Iterable[bytes]) -> None:
        """End what `working` returned, in one transaction; what has ended since is passed over. Blocks."""
        began, leaks = time.monotonic(), list[tuple[Finder, Leak]]()
        with self._database.write() as connection:
            for token in working:
                finder = self._finder_of(token)
                leak = None if finder is None else finder.end(connection, token, now=self._clock())
                if finder is not None and leak is not None:
                    leaks.append((finder, leak))
        for finder, leak in leaks:
            finder.tell(leak, began)
            self._on_leak(leak)

    def working(self, tokens: Iterable[bytes]) -> list[bytes]:
        """Those of `tokens` that work. Blocks, but not on the write lock: nobody shall hold that by reporting garbage."""
        found = [(self._finder_of(token), token) for token in tokens]
        with self._database.read() as connection:
            return [
                token
                for finder, token in found
                if finder is not None and finder.works(connection, token, now=self._clock())
            ]

    def _finder_of(self, token: bytes) -> Finder | None:
        return next((finder for prefix, finder in self._finders.items() if token.startswith(prefix)), None)


class LeakedKeys:
    """The finder of API keys. A key whose present secret leaked is disabled; of one that has two, an old one just ends."""

    def __init__(self, database: Database, peppers: Peppers, *, on_change: OnChange, trail: Trail) -> None:
        """`on_change` is told of each key that changed."""
        self._peppers = peppers
        self._on_change = on_change
        self._trail = trail
        self._credentials = SqlCredentialStore(database)
        self._store = SqlKeyStore()
        self._signing_keys = SqlSigningKeyStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `Finder`."""
        return self._find(connection, token, now) is not None

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `Finder`. A key that is disabled already is marked, so that nobody enables it with the same secret.

        Its signing keys go: who had the secret may have made one, which would work on when the key has another secret.
        """
        found = self._find(connection, token, now)
        if found is None:
            return None
        key, match = found
        if match == "old":
            return self._end_old_secret(connection, key, now)
        # From now, also where it was disabled before: a rotation since then has not made another secret of this one.
        values = {"disabled_at": now, "disabled_because": LEAKED, "old_secret_hmac": None}
        self._store.update(connection, key.id, values)
        gone = self._signing_keys.delete_of_key(connection, key.id)
        for each in gone:
            self._trail.record(connection, None, _signing_key_deleted(key, each))
        self._record(connection, key, "key.disable", now)
        done = "It is disabled, and its signing keys are deleted." if gone else "It is disabled."
        return _leak(key, f"{done} Give it a new secret, and ask an administrator to enable it.")

    def tell(self, leak: Leak, began: float) -> None:
        """See `Finder`."""
        self._on_change("key", leak.id, began)

    def _find(self, connection: Connection, token: bytes, now: float) -> tuple[ApiKey, Match] | None:
        """The key of `token`, and which of its secrets that is; None when neither works, or it is reported already."""
        key_id = credential_id(token)
        row = None if key_id is None else self._credentials.credential_in(connection, key_id)
        match = stored_secrets(row, self._peppers).match(token, self._peppers)
        if row is None or match is None:
            return None
        key = key_of(row)
        if match == "old":
            return (key, match) if len(key.secrets(now)) > 1 else None
        return None if key.needs_another_secret or key.state(now) == "expired" else (key, match)

    def _end_old_secret(self, connection: Connection, key: ApiKey, now: float) -> Leak:
        self._store.update(connection, key.id, {"old_secret_hmac": None, "old_expires_at": now})
        self._record(connection, key, "key.end_old_secret", now)
        return _leak(
            key, "It was the secret before the last rotation; that has ended, and the present one works on."
        )

    def _record(self, connection: Connection, key: ApiKey, action: str, now: float) -> None:
        changed = self._credentials.credential_in(connection, key.id)
        deed = Deed(
            action=action,
            target_kind="key",
            target_id=key.id,
            target_name=key.name,
            project_id=key.project_id or None,
            before=KeyView.of(key, now=now).model_dump(),
            after=None if changed is None else KeyView.of(key_of(changed), now=now).model_dump(),
            reason=LEAKED,
        )
        self._trail.record(connection, None, deed)


def _signing_key_deleted(key: ApiKey, signing_key: SigningKey) -> Deed:
    return Deed(
        action="signing_key.delete",
        target_kind="signing_key",
        target_id=signing_key.id,
        target_name=signing_key.name,
        project_id=key.project_id or None,
        before={"key": key.id, **SigningKeyView.of(signing_key).model_dump()},
        reason=LEAKED,
    )


def credentials_in(text: bytes) -> list[bytes]:
    """The credentials in `text`, each once, in their order: what has the form and, unless it is a JWT, the right checksum."""
    return list(dict.fromkeys(token for _, token in sorted([*find_credentials(text), *find_jwts(text)])))


def _leak(key: ApiKey, done: str) -> Leak:
    return Leak(kind="key", id=key.id, what=f"Key `{key.name}` of `{key.user_name}`", done=done)
