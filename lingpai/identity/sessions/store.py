"""The SQL of sessions. Every function works in the caller's transaction. `owner` restricts to one user's; None sees all."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, delete, or_, select, tuple_, update

from lingpai.identity.sessions.interfaces import Session
from lingpai.identity.sessions.tables import sessions
from lingpai.identity.store import Position
from lingpai.identity.tables import projects, users

_CREDENTIAL: Final = (
    select(
        sessions,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.limits.label("user_limits"),
        users.c.disabled_at.label("user_disabled_at"),
        projects.c.id.label("project_id"),
        projects.c.name.label("project_name"),
        projects.c.limits.label("project_limits"),
    )
    .join_from(sessions, users)
    .outerjoin(projects, (projects.c.owner_id == users.c.id) & projects.c.is_personal)
    .where(sessions.c.id == bindparam("session_id"))
)


class SqlSessionStore:
    """Sessions that have not ended. Those whose time is over are seen until they are removed."""

    def credential(self, connection: Connection, session_id: str) -> Row[Any] | None:
        """The session's row joined with its user and their personal project, or None.

        That adds `user_name`, `role`, `user_limits`, `user_disabled_at`, `project_id`, `project_name`, `project_limits`.
        """
        return connection.execute(_CREDENTIAL, {"session_id": session_id}).one_or_none()

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a session."""
        connection.execute(sessions.insert(), dict(row))

    def touch(self, connection: Connection, session_id: str, now: float) -> None:
        """The session was used."""
        connection.execute(update(sessions).where(sessions.c.id == session_id).values(last_seen_at=now))

    def find(self, connection: Connection, session_id: str, *, owner: str | None) -> Session | None:
        """The session with this id."""
        row = connection.execute(_seen(owner).where(sessions.c.id == session_id)).one_or_none()
        return None if row is None else _session(row)

    def page(
        self,
        connection: Connection,
        *,
        owner: str | None,
        after: Position | None,
        limit: int,
        alive_since: float,
        now: float,
    ) -> list[Session]:
        """Up to `limit` sessions, oldest first, beginning after a position: those seen after `alive_since`."""
        query = _seen(owner).where(sessions.c.last_seen_at > alive_since, sessions.c.expires_at > now)
        if after is not None:
            query = query.where(tuple_(sessions.c.created_at, sessions.c.id) > after)
        query = query.order_by(sessions.c.created_at, sessions.c.id).limit(limit)
        return [_session(row) for row in connection.execute(query)]

    def of_user(self, connection: Connection, user_id: str) -> list[Session]:
        """All sessions of a user, the one that was used last first."""
        query = _seen(user_id).order_by(sessions.c.last_seen_at.desc(), sessions.c.id)
        return [_session(row) for row in connection.execute(query)]

    def over(self, connection: Connection, *, now: float, alive_since: float, most: int) -> list[Session]:
        """Up to `most` sessions whose time is over, or that nobody has used since `alive_since`."""
        is_over = or_(sessions.c.expires_at <= now, sessions.c.last_seen_at <= alive_since)
        return [_session(row) for row in connection.execute(_seen(None).where(is_over).limit(most))]

    def delete(self, connection: Connection, ids: Sequence[str]) -> None:
        """End sessions."""
        if ids:
            connection.execute(delete(sessions).where(sessions.c.id.in_(ids)))


def _seen(owner: str | None) -> Select[Any]:
    query: Select[Any] = select(sessions, users.c.name.label("user_name")).join_from(sessions, users)
    return query if owner is None else query.where(sessions.c.user_id == owner)


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        user_name=row.user_name,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        address=row.address,
        user_agent=row.user_agent,
    )
