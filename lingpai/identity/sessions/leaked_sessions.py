"""The finder of leaked sessions: somebody else has the cookie of a browser in which a user is signed in."""

from collections.abc import Callable, Iterable

from sqlalchemy import Connection

from lingpai.identity.interfaces import LEAKED
from lingpai.identity.key_secrets import stored_token_secret
from lingpai.identity.leaks import Leak
from lingpai.identity.peppers import Peppers
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.interfaces import Session
from lingpai.identity.sessions.store import SqlSessionStore
from lingpai.ids import credential_id
from lingpai.storage.trail import Trail


class LeakedSessions:
    """The finder of sessions (`ss-lp-`). The other sessions of the user stay."""

    def __init__(
        self, peppers: Peppers, *, idle_s: float, on_ended: Callable[[Iterable[str]], None], trail: Trail
    ) -> None:
        """A session that nobody used for `idle_s` is over; `on_ended` is told the ids of those that ended."""
        self._peppers = peppers
        self._idle_s = idle_s
        self._on_ended = on_ended
        self._ender = SessionEnder(trail)
        self._store = SqlSessionStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `lingpai.identity.leaks.Finder`."""
        return self._find(connection, token, now) is not None

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`."""
        session = self._find(connection, token, now)
        if session is None:
            return None
        self._ender.end(connection, None, [session], LEAKED)
        return Leak(
            kind="session",
            id=session.id,
            what=f"Session `{session.id}` of `{session.user_name}`",
            done="It has ended. Sign in again.",
            about=("user", session.user_id),
        )

    def tell(self, leak: Leak, began: float) -> None:  # noqa: ARG002  the memory of sessions needs no time
        """See `lingpai.identity.leaks.Finder`."""
        self._on_ended([leak.id])

    def _find(self, connection: Connection, token: bytes, now: float) -> Session | None:
        session_id = credential_id(token)
        row = None if session_id is None else self._store.credential(connection, session_id)
        is_right = stored_token_secret(row, self._peppers).match(token, self._peppers) is not None
        if row is None or not is_right or now >= min(row.expires_at, row.last_seen_at + self._idle_s):
            return None
        return self._store.find(connection, row.id, owner=None)
