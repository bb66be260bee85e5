"""Sessions end: in the transaction of what ends them, each with a record of why."""

from collections.abc import Sequence

from sqlalchemy import Connection

from lingpai.identity.sessions.interfaces import Session
from lingpai.identity.sessions.store import SqlSessionStore
from lingpai.principal import Principal
from lingpai.storage.trail import Deed, Trail


class SessionEnder:
    """Ends sessions in the database. Whoever calls it tells the memory after the commit, by the ids or by the user."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._store = SqlSessionStore()

    def end(
        self, connection: Connection, caller: Principal | None, sessions: Sequence[Session], because: str
    ) -> list[str]:
        """End these. Returns their ids. `caller` is None for the server itself."""
        ids = [session.id for session in sessions]
        self._store.delete(connection, ids)
        for session in sessions:
            deed = Deed(
                action="session.end",
                target_kind="session",
                target_id=session.id,
                target_name=session.user_name,
                before={"address": session.address, "user_agent": session.user_agent},
                reason=because,
            )
            self._trail.record(connection, caller, deed)
        return ids

    def end_of_user(
        self,
        connection: Connection,
        caller: Principal | None,
        user_id: str,
        because: str,
        *,
        keep: str | None = None,
    ) -> list[str]:
        """End all sessions of a user but `keep`. Returns their ids."""
        found = [session for session in self._store.of_user(connection, user_id) if session.id != keep]
        return self.end(connection, caller, found, because)
