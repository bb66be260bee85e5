"""The SQL of projects. Every function works in the caller's transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, or_, select, update

from lingpai.identity.interfaces import Project
from lingpai.identity.member_store import projects_of
from lingpai.identity.store import Position, is_after
from lingpai.identity.tables import project_members, projects, users
from lingpai.principal import Principal


class SqlProjectStore:
    """Projects that are not deleted. `caller` restricts what is seen to those they have a role in; None and administrators see all."""

    def insert(self, connection: Connection, project: Project) -> None:
        """Add a project with its owner as admin. Raises sqlalchemy.exc.IntegrityError when the name is taken."""
        columns = ("id", "name", "owner_id", "is_personal", "limits", "created_at")
        connection.execute(projects.insert(), {name: getattr(project, name) for name in columns})
        member = {"project_id": project.id, "user_id": project.owner_id, "role": "admin"}
        connection.execute(project_members.insert(), {**member, "created_at": project.created_at})

    def find(
        self, connection: Connection, reference: str, *, caller: Principal | None = None
    ) -> Project | None:
        """The project whose id is `reference`; else the one of that name."""
        query = _visible_projects(caller).where(or_(projects.c.id == reference, projects.c.name == reference))
        found = [_project(row) for row in connection.execute(query)]
        return next((project for project in found if project.id == reference), found[0] if found else None)

    def personal(self, connection: Connection, user_id: str) -> Project | None:
        """The personal project of a user, or None when it was never made."""
        query = _visible_projects(None).where(projects.c.is_personal, projects.c.owner_id == user_id)
        row = connection.execute(query).one_or_none()
        return None if row is None else _project(row)

    def page(
        self,
        connection: Connection,
        *,
        caller: Principal | None,
        search: str | None = None,
        member_id: str | None = None,
        after: Position | None,
        limit: int,
    ) -> list[Project]:
        """Up to `limit` projects, oldest first, beginning after a position; with `member_id` those of that user."""
        query = _visible_projects(caller).where(is_after(projects.c, after))
        if search is not None:
            query = query.where(projects.c.name.icontains(search, autoescape=True))
        if member_id is not None:
            query = query.where(projects.c.id.in_(projects_of(member_id)))
        query = query.order_by(projects.c.created_at, projects.c.id).limit(limit)
        return [_project(row) for row in connection.execute(query)]

    def update(self, connection: Connection, project_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a project. Raises sqlalchemy.exc.IntegrityError when the new name is taken."""
        connection.execute(update(projects).where(projects.c.id == project_id).values(dict(values)))

    def is_taken(self, connection: Connection, name: str) -> bool:
        """Whether a project has this name, a deleted one included."""
        return connection.scalar(select(projects.c.id).where(projects.c.name == name)) is not None


def _visible_projects(caller: Principal | None) -> Select[Any]:
    own = project_members.alias("own")
    query = (
        select(projects, users.c.name.label("owner_name"), own.c.role.label("own_role"))
        .join_from(projects, users)
        .outerjoin(
            own,
            and_(
                own.c.project_id == projects.c.id,
                own.c.user_id == (None if caller is None else caller.user_id),
            ),
        )
        .where(projects.c.deleted_at.is_(None))
    )
    return query.where(own.c.role.is_not(None)) if caller is not None and not caller.is_admin else query


def _project(row: Row[Any]) -> Project:
    return Project(
        id=row.id,
        name=row.name,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        is_personal=row.is_personal,
        limits=tuple(row.limits),
        created_at=row.created_at,
        role=row.own_role,
    )
