"""The SQL of the members of projects. Every function works in the caller's transaction."""

from typing import Any

from sqlalchemy import CompoundSelect, Connection, Row, Select, and_, delete, or_, select, tuple_, update

from lingpai.identity.interfaces import Member
from lingpai.identity.oauth.tables import clients
from lingpai.identity.roles import ProjectRole
from lingpai.identity.tables import api_keys, project_members, users

Position = tuple[float, str]
"""The sort key of the list of members: since when, and the user's id."""


def projects_of(user_id: str) -> Select[Any]:
    """For `IN`: the ids of the projects in which a user has a role."""
    return select(project_members.c.project_id).where(project_members.c.user_id == user_id)


def people_around(user_id: str) -> CompoundSelect[Any]:
    """For `IN`: the ids of everybody with a role, a key or a client in one of a user's projects; the user included."""
    around = projects_of(user_id)
    members = select(project_members.c.user_id).where(project_members.c.project_id.in_(around))
    key_owners = select(api_keys.c.user_id).where(api_keys.c.project_id.in_(around))
    client_owners = select(clients.c.user_id).where(clients.c.project_id.in_(around))
    return members.union(key_owners, client_owners)


class SqlMemberStore:
    """Who has which role in which project."""

    def role(self, connection: Connection, project_id: str, user_id: str) -> ProjectRole | None:
        """A user's role in a project; None is no role."""
        query = select(project_members.c.role).where(_is(project_id, user_id))
        role: ProjectRole | None = connection.scalar(query)
        return role

    def find(self, connection: Connection, project_id: str, reference: str) -> Member | None:
        """The member whose user id is `reference`; else the one of that name."""
        query = _members(project_id).where(or_(users.c.id == reference, users.c.name == reference))
        found = [_member(row) for row in connection.execute(query)]
        return next((member for member in found if member.user_id == reference), found[0] if found else None)

    def page(
        self,
        connection: Connection,
        project_id: str,
        *,
        search: str | None = None,
        role: ProjectRole | None = None,
        after: Position | None,
        limit: int,
    ) -> list[Member]:
        """Up to `limit` members, those of longest standing first; with `search` in their name, and this role."""
        columns = project_members.c
        query = _members(project_id)
        if search is not None:
            query = query.where(users.c.name.icontains(search, autoescape=True))
        if role is not None:
            query = query.where(columns.role == role)
        if after is not None:
            query = query.where(tuple_(columns.created_at, columns.user_id) > after)
        query = query.order_by(columns.created_at, columns.user_id).limit(limit)
        return [_member(row) for row in connection.execute(query)]

    def insert(
        self, connection: Connection, *, project_id: str, user_id: str, role: ProjectRole, now: float
    ) -> None:
        """Add a member. Raises sqlalchemy.exc.IntegrityError for somebody who is one."""
        values = {"project_id": project_id, "user_id": user_id, "role": role, "created_at": now}
        connection.execute(project_members.insert(), values)

    def set_role(self, connection: Connection, member: Member, role: ProjectRole) -> None:
        """Give a member another role."""
        where = _is(member.project_id, member.user_id)
        connection.execute(update(project_members).where(where).values(role=role))

    def remove(self, connection: Connection, member: Member) -> None:
        """Remove a member."""
        connection.execute(delete(project_members).where(_is(member.project_id, member.user_id)))

    def remove_all(self, connection: Connection, project_id: str) -> None:
        """Remove all members of a project."""
        connection.execute(delete(project_members).where(project_members.c.project_id == project_id))

    def other_admin(self, connection: Connection, member: Member) -> str | None:
        """The user id of the admin of longest standing beside `member`, of those who are not disabled; None if there is none."""
        columns = project_members.c
        query = (
            select(columns.user_id)
            .join_from(project_members, users)
            .where(
                columns.project_id == member.project_id,
                columns.role == "admin",
                columns.user_id != member.user_id,
                users.c.disabled_at.is_(None),
            )
            .order_by(columns.created_at, columns.user_id)
        )
        user_id: str | None = connection.scalar(query.limit(1))
        return user_id

    def person(self, connection: Connection, reference: str, *, seen_by: str | None) -> str | None:
        """The id of the user with this id or name; with `seen_by` (a user's id) only of those around that user."""
        query = select(users.c.id).where(or_(users.c.id == reference, users.c.name == reference))
        if seen_by is not None:
            query = query.where(or_(users.c.id == seen_by, users.c.id.in_(people_around(seen_by))))
        found: str | None = connection.scalar(query.order_by(users.c.id != reference).limit(1))
        return found


def _is(project_id: str, user_id: str) -> Any:
    return and_(project_members.c.project_id == project_id, project_members.c.user_id == user_id)


def _members(project_id: str) -> Select[Any]:
    columns = project_members.c
    query = select(project_members, users.c.name, users.c.disabled_at).join_from(project_members, users)
    return query.where(columns.project_id == project_id)


def _member(row: Row[Any]) -> Member:
    return Member(
        project_id=row.project_id,
        user_id=row.user_id,
        user_name=row.name,
        role=row.role,
        created_at=row.created_at,
        is_disabled=row.disabled_at is not None,
    )
