"""The SQL of invitations. Every function works in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from lingpai.identity.sessions.tables import invitations
from lingpai.identity.tables import users


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvitation:
    """An invitation that is not used up yet. Times are Unix seconds."""

    id: str
    user_id: str
    user_name: str
    created_at: float
    expires_at: float
    pepper_version: int
    secret_hmac: bytes = field(repr=False)


class SqlInvitationStore:
    """Invitations of users who are neither deleted nor disabled; each has one at the most."""

    def find(
        self, connection: Connection, invitation_id: str, *, of_disabled: bool = False
    ) -> StoredInvitation | None:
        """The invitation with this id; with `of_disabled` also when its user is disabled."""
        query = _SELECT.where(invitations.c.id == invitation_id, users.c.deleted_at.is_(None))
        if not of_disabled:
            query = query.where(users.c.disabled_at.is_(None))
        row = connection.execute(query).one_or_none()
        return None if row is None else _invitation(row)

    def of_user(self, connection: Connection, user_id: str) -> StoredInvitation | None:
        """The invitation of a user."""
        row = connection.execute(_SELECT.where(invitations.c.user_id == user_id)).one_or_none()
        return None if row is None else _invitation(row)

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add an invitation, instead of the one that its user has."""
        self.delete_of_user(connection, row["user_id"])
        connection.execute(invitations.insert(), dict(row))

    def delete(self, connection: Connection, invitation_id: str) -> bool:
        """Use an invitation up. False when somebody else has done so."""
        return connection.execute(delete(invitations).where(invitations.c.id == invitation_id)).rowcount == 1

    def delete_of_user(self, connection: Connection, user_id: str) -> None:
        """Take back whatever invitation a user has."""
        connection.execute(delete(invitations).where(invitations.c.user_id == user_id))

    def over(self, connection: Connection, now: float, most: int) -> list[StoredInvitation]:
        """Up to `most` invitations whose time is over."""
        rows = connection.execute(_SELECT.where(invitations.c.expires_at <= now).limit(most))
        return [_invitation(row) for row in rows]


_SELECT = select(invitations, users.c.name.label("user_name")).join_from(invitations, users)


def _invitation(row: Row[Any]) -> StoredInvitation:
    return StoredInvitation(**{name: getattr(row, name) for name in StoredInvitation.__slots__})
