"""The rules of sessions: a browser in which somebody is signed in (OWASP ASVS 5.0, chapter 7).

The secret in the cookie has 256 random bits and is kept as an HMAC under the server's pepper, like that of a key. Every
sign-in makes a new one. A session has the rights of its user's role, ends when nobody uses it, and in any case after a
while.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from math import ceil
from typing import Any, Final

from sqlalchemy import Connection, Row
from sqlalchemy.exc import OperationalError

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_user
from lingpai.identity.interfaces import OnChange, RevokesTokens, User
from lingpai.identity.known_ids import LookUps
from lingpai.identity.peppers import Peppers
from lingpai.identity.rights import visible_user
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.interfaces import NewSession, Session
from lingpai.identity.sessions.memory import SessionMemory
from lingpai.identity.sessions.store import SqlSessionStore
from lingpai.identity.settings import IdentitySettings
from lingpai.identity.store import Position, SqlUserStore
from lingpai.ids import credential_id, mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

logger = logging.getLogger("lingpai.identity")

MOST_PER_USER: Final = 50
EVERYWHERE: Final = "signed out everywhere"
SEEN_EVERY_S: Final = 60.0
_REMOVED_AT_A_TIME: Final = 500
_NO_HMAC: Final = bytes(32)  # what no credential has


class Sessions:
    """All sessions. `caller_of` belongs to the event loop; everything else blocks and belongs to worker threads."""

    def __init__(
        self,
        database: Database,
        *,
        settings: IdentitySettings,
        peppers: Peppers,
        memory: SessionMemory,
        network_of: Callable[[str], str | None],
        tokens: RevokesTokens,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._settings = settings
        self._peppers = peppers
        self._memory = memory
        self._network_of = network_of
        self._tokens = tokens
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._store = SqlSessionStore()
        self._ender = SessionEnder(trail)
        self._look_ups = LookUps()

    # -- who calls

    async def caller_of(self, token: bytes, address: str) -> Principal | None:
        """Who is signed in by this secret, with the scopes of their role; None when it is none, or none any more.

        Raises LingpaiError (rate_limit_exceeded) when too many that are none came from `address`.
        """
        session_id = credential_id(token) if token.startswith(b"ss-lp-") else None
        if session_id is None:
            return None
        caller = self._memory.find(session_id, token)
        if caller is not None:
            return caller
        network = self._network_of(address) or ""
        wait_s = self._look_ups.wait_s(network, time.monotonic())
        if wait_s:
            raise _too_many_unknown(ceil(wait_s))
        caller = await asyncio.to_thread(self._load, session_id, token)
        if caller is None:
            self._look_ups.failed(network, time.monotonic())
        return caller

    def _load(self, session_id: str, token: bytes) -> Principal | None:
        as_of = self._memory.as_of
        with self._database.read() as connection:
            row = self._store.credential(connection, session_id)
        version, stored = self._stored_hmac(row)
        # One HMAC and one comparison in every case, so that timing does not tell which ids exist.
        is_right = hmac.compare_digest(self._peppers.hmac(token, version), stored)
        if not is_right or row is None or not self._is_alive(row):
            return None
        self._note_use(row)
        caller = _principal(row)
        self._memory.put(session_id, token, caller, as_of)
        return caller

    def _stored_hmac(self, row: Row[Any] | None) -> tuple[int, bytes]:
        if row is None or row.pepper_version not in self._peppers:
            return self._peppers.newest_version, _NO_HMAC
        return row.pepper_version, row.secret_hmac

    def _is_alive(self, row: Row[Any]) -> bool:
        now = self._clock()
        return (
            row.user_disabled_at is None
            and now < row.expires_at
            and now < row.last_seen_at + self._settings.session_idle_s
        )

    def _note_use(self, row: Row[Any]) -> None:
        now = self._clock()
        if now - row.last_seen_at < SEEN_EVERY_S:
            return
        try:
            with self._database.write(durable=False) as connection:
                self._store.touch(connection, row.id, now)
        except OperationalError as error:  # a full disk must not sign everybody out
            logger.warning("the last use of a session could not be noted: %s", error.orig)

    # -- sign in

    def sign_in(
        self, user: User, *, address: str, user_agent: str, replaces: Principal | None = None
    ) -> NewSession:
        """Start a session for somebody whose password was right; the one that their browser had, ends.

        `user` is who they were when that was found. Raises LingpaiError (invalid_credentials) when they have been
        disabled, or have another password, since.
        """
        with self._database.write() as connection:
            now_is = SqlUserStore().find(connection, user.id, only=None)
            if (
                now_is is None
                or now_is.disabled_at is not None
                or now_is.password_changed_at != user.password_changed_at
            ):
                raise LingpaiError(
                    "invalid_credentials", "The password was changed in this moment. Sign in again."
                )
            ended: list[str] = []
            if replaces is not None and replaces.session_id is not None:
                old = self._store.find(connection, replaces.session_id, owner=None)
                ended = self._ender.end(connection, replaces, [old] if old else [], "signed in again")
            made = self.start(connection, now_is, address=address, user_agent=user_agent)
        self._memory.forget(ended)
        return made

    def start(self, connection: Connection, user: User, *, address: str, user_agent: str) -> NewSession:
        """Start a session in the caller's transaction. Beyond `MOST_PER_USER` the one that was used longest ago ends."""
        minted, now = mint_credential("ss-lp-"), self._clock()
        version = self._peppers.newest_version
        session = Session(
            id=minted.id,
            user_id=user.id,
            user_name=user.name,
            created_at=now,
            last_seen_at=now,
            expires_at=now + self._settings.session_lifetime_s,
            address=address[:45] or None,
            user_agent=_printable(user_agent),
        )
        caller = Principal(user.id, user.name, user.role, session_id=session.id)
        others = self._store.of_user(connection, user.id)
        self._ender.end(connection, caller, others[MOST_PER_USER - 1 :], "too many sessions")
        row = {name: getattr(session, name) for name in Session.__slots__ if name != "user_name"}
        proof = {"secret_hmac": self._peppers.hmac(minted.token.encode(), version), "pepper_version": version}
        self._store.insert(connection, {**row, **proof})
        self._trail.record(connection, caller, _started(session))
        return NewSession(session, minted.token)

    # -- list and end

    def list(
        self,
        caller: Principal,
        *,
        user: str | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[Session]:
        """Up to `limit` of the caller's sessions, oldest first; an administrator sees those of all, or of one `user`."""
        now = self._clock()
        with self._database.read() as connection:
            return self._store.page(
                connection,
                owner=self._owner(connection, caller, user),
                after=after,
                limit=limit,
                alive_since=now - self._settings.session_idle_s,
                now=now,
            )

    def get(self, caller: Principal, session_id: str) -> Session:
        """A session. Raises LingpaiError (not_found)."""
        with self._database.read() as connection:
            return self._find(connection, caller, session_id)

    def end(self, caller: Principal, session_id: str) -> None:
        """End a session at once. Raises LingpaiError (not_found)."""
        with self._database.write() as connection:
            session = self._find(connection, caller, session_id)
            because = "signed out" if session.id == caller.session_id else "ended by its user"
            if session.user_id != caller.user_id:
                because = "ended by an administrator"
            ended = self._ender.end(connection, caller, [session], because)
        self._memory.forget(ended)

    def end_others(self, caller: Principal, user: str | None = None) -> tuple[int, int]:
        """Sign the caller, or `user`, out everywhere: of all sessions but the one that says so, and of all programs.

        Programs are token families, whose refresh and access tokens end (RFC 9700 section 4.14.2 allows it). Returns how
        many sessions and how many programs there were.
        """
        began = time.monotonic()
        with self._database.write() as connection:
            owner = find_user(connection, user or caller.user_id, only=visible_user(caller), param="user")
            ended = self._ender.end_of_user(connection, caller, owner.id, EVERYWHERE, keep=caller.session_id)
            programs = self._tokens.revoke_of_user(connection, owner.id, EVERYWHERE)
            if programs:
                self._trail.record(connection, caller, _programs_ended(owner, programs))
        self._memory.forget(ended)
        if programs:
            self._on_change("user", owner.id, began)
        return len(ended), programs

    def forget(self, session_ids: Iterable[str]) -> None:
        """Sessions were ended in the database by others: let nobody go on with what is in memory. Any thread may."""
        self._memory.forget(session_ids)

    def remove_expired(self) -> int:
        """Remove those whose time is over; at most a few hundred at a time. Returns how many."""
        now = self._clock()
        with self._database.write() as connection:
            over = self._store.over(
                connection,
                now=now,
                alive_since=now - self._settings.session_idle_s,
                most=_REMOVED_AT_A_TIME,
            )
            return len(self._ender.end(connection, None, over, "expired"))

    def _owner(self, connection: Connection, caller: Principal, user: str | None) -> str | None:
        if user is None:
            return visible_user(caller)
        return find_user(connection, user, only=visible_user(caller), param="user").id

    def _find(self, connection: Connection, caller: Principal, session_id: str) -> Session:
        found = self._store.find(connection, session_id, owner=visible_user(caller))
        if found is None:
            raise LingpaiError(
                "not_found", "There is no such session. `GET /api/v1/sessions` lists those you can see."
            )
        return found


def _principal(row: Row[Any]) -> Principal:
    return Principal(
        row.user_id,
        row.user_name,
        row.role,
        scopes=SCOPES_OF_ROLE[row.role],
        user_limits=tuple(row.user_limits),
        project_id=row.project_id or "",
        project_name=row.project_name or row.user_name,
        project_limits=tuple(row.project_limits or ()),
        session_id=row.id,
        created_at=row.created_at,
    )


def _started(session: Session) -> Deed:
    return Deed(
        action="session.create",
        target_kind="session",
        target_id=session.id,
        target_name=session.user_name,
        after={"address": session.address, "user_agent": session.user_agent},
    )


def _programs_ended(user: User, count: int) -> Deed:
    return Deed(
        action="token.revoke",
        target_kind="user",
        target_id=user.id,
        target_name=user.name,
        before={"programs": count},
        reason=EVERYWHERE,
    )


def _printable(user_agent: str) -> str | None:
    """What a browser says it is, as lists may show it; None when it says nothing."""
    return "".join(character for character in user_agent if character.isprintable())[:200] or None


def _too_many_unknown(wait_s: int) -> LingpaiError:
    return LingpaiError(
        "rate_limit_exceeded",
        f"Too many unknown sessions came from your address. Try again in {wait_s} s.",
        headers={"retry-after": str(wait_s)},
    )
