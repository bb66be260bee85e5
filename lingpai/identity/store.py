"""The SQL of identity. Every function that takes a connection works in the caller's transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    update,
)

from lingpai.identity.interfaces import ApiKey, KeyUse, Project, User
from lingpai.identity.scopes import effective_scopes
from lingpai.identity.tables import api_keys, projects, users
from lingpai.storage.database import Database

Position = tuple[float, str]
"""The sort key of lists: when something was made, and its id."""

# Outer: a key without a project (see tables.py) still works, and shows its owner's personal project, named like them.
_KEY_COLUMNS: Final = (
    select(
        api_keys,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.limits.label("user_limits"),
        users.c.disabled_at.label("user_disabled_at"),
        func.coalesce(projects.c.name, users.c.name).label("project_name"),
        projects.c.limits.label("project_limits"),
    )
    .join_from(api_keys, users)
    .outerjoin(projects, projects.c.id == api_keys.c.project_id)
)

_CREDENTIAL: Final = _KEY_COLUMNS.where(api_keys.c.id == bindparam("key_id"), api_keys.c.deleted_at.is_(None))


class SqlCredentialStore:
    """Reads one key for the keyring."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def credential(self, key_id: str) -> Row[Any] | None:
        """The key's row joined with its owner and project, or None.

        That adds `user_name`, `role`, `user_limits`, `user_disabled_at`, `project_name` and `project_limits`.
        """
        with self._database.read() as connection:
            return connection.execute(_CREDENTIAL, {"key_id": key_id}).one_or_none()


class SqlKeyStore:
    """API keys. `owner` restricts what is seen to one user's keys; None sees all. Deleted keys are never seen."""

    def is_empty(self, connection: Connection) -> bool:
        """Whether no key was ever made; deleted ones count."""
        return connection.execute(select(api_keys.c.id).limit(1)).first() is None

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a key. Raises sqlalchemy.exc.IntegrityError when its owner has a key of that name."""
        connection.execute(api_keys.insert(), dict(row))

    def find(self, connection: Connection, reference: str, *, owner: str | None) -> list[ApiKey]:
        """The key whose id is `reference`; else all keys of that name."""
        query = _live_keys(owner).where(or_(api_keys.c.id == reference, api_keys.c.name == reference))
        found = [_key(row) for row in connection.execute(query.order_by(api_keys.c.created_at))]
        return [key for key in found if key.id == reference] or found

    def page(
        self,
        connection: Connection,
        *,
        owner: str | None,
        name: str | None,
        project: str | None,
        after: Position | None,
        limit: int,
    ) -> list[ApiKey]:
        """Up to `limit` keys, oldest first, beginning after a position."""
        query = _live_keys(owner).where(_after(api_keys.c, after))
        if name is not None:
            query = query.where(api_keys.c.name == name)
        if project is not None:
            query = query.where(api_keys.c.project_id == project)
        query = query.order_by(api_keys.c.created_at, api_keys.c.id).limit(limit)
        return [_key(row) for row in connection.execute(query)]

    def update(self, connection: Connection, key_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a key. Raises sqlalchemy.exc.IntegrityError when the new name is taken."""
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(dict(values)))

    def touch(self, connection: Connection, uses: Sequence[KeyUse]) -> None:
        """Note last uses; an earlier one never replaces a later one."""
        statement = (
            update(api_keys)
            .where(
                api_keys.c.id == bindparam("key_id"),
                func.coalesce(api_keys.c.last_used_at, 0.0) < bindparam("time"),
            )
            .values(last_used_at=bindparam("time"), last_used_ip=bindparam("address"))
        )
        connection.execute(statement, [use._asdict() for use in uses])


class SqlUserStore:
    """Users. `only` restricts what is seen to one user; None sees all."""

    def is_empty(self, connection: Connection) -> bool:
        """Whether there is no user at all."""
        return connection.execute(select(users.c.id).limit(1)).first() is None

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a user. Raises sqlalchemy.exc.IntegrityError when the name is taken."""
        connection.execute(users.insert(), dict(row))

    def find(self, connection: Connection, reference: str, *, only: str | None) -> User | None:
        """The user whose id is `reference`; else the one of that name."""
        query = _visible_users(only).where(or_(users.c.id == reference, users.c.name == reference))
        found = [_user(row) for row in connection.execute(query)]
        return next((user for user in found if user.id == reference), found[0] if found else None)

    def page(
        self, connection: Connection, *, only: str | None, after: Position | None, limit: int
    ) -> list[User]:
        """Up to `limit` users, oldest first, beginning after a position."""
        query = _visible_users(only).where(_after(users.c, after)).order_by(users.c.created_at, users.c.id)
        return [_user(row) for row in connection.execute(query.limit(limit))]

    def update(self, connection: Connection, user_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a user."""
        connection.execute(update(users).where(users.c.id == user_id).values(dict(values)))

    def has_other_admin(self, connection: Connection, user_id: str) -> bool:
        """Whether somebody else is an administrator who is not disabled."""
        others = select(users.c.id).where(
            users.c.role == "admin", users.c.disabled_at.is_(None), users.c.id != user_id
        )
        return connection.execute(others.limit(1)).first() is not None


class SqlProjectStore:
    """Projects. `owner` restricts what is seen to one user's projects; None sees all."""

    def insert(self, connection: Connection, project: Project) -> None:
        """Add a project. Raises sqlalchemy.exc.IntegrityError when the name is taken."""
        row = {column.name: getattr(project, column.name) for column in projects.columns}
        connection.execute(projects.insert(), row)

    def find(self, connection: Connection, reference: str, *, owner: str | None) -> Project | None:
        """The project whose id is `reference`; else the one of that name."""
        query = _visible_projects(owner).where(or_(projects.c.id == reference, projects.c.name == reference))
        found = [_project(row) for row in connection.execute(query)]
        return next((project for project in found if project.id == reference), found[0] if found else None)

    def personal(self, connection: Connection, user_id: str) -> Project | None:
        """The personal project of a user, or None when it was never made."""
        query = _visible_projects(user_id).where(projects.c.is_personal)
        row = connection.execute(query).one_or_none()
        return None if row is None else _project(row)

    def page(
        self, connection: Connection, *, owner: str | None, after: Position | None, limit: int
    ) -> list[Project]:
        """Up to `limit` projects, oldest first, beginning after a position."""
        query = _visible_projects(owner).where(_after(projects.c, after))
        query = query.order_by(projects.c.created_at, projects.c.id).limit(limit)
        return [_project(row) for row in connection.execute(query)]

    def update(self, connection: Connection, project_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a project. Raises sqlalchemy.exc.IntegrityError when the new name is taken."""
        connection.execute(update(projects).where(projects.c.id == project_id).values(dict(values)))


def _live_keys(owner: str | None) -> Select[Any]:
    query = _KEY_COLUMNS.where(api_keys.c.deleted_at.is_(None))
    return query if owner is None else query.where(api_keys.c.user_id == owner)


def _visible_users(only: str | None) -> Select[Any]:
    query: Select[Any] = select(users)
    return query if only is None else query.where(users.c.id == only)


def _visible_projects(owner: str | None) -> Select[Any]:
    query: Select[Any] = select(projects, users.c.name.label("owner_name")).join_from(projects, users)
    return query if owner is None else query.where(projects.c.owner_id == owner)


def _after(columns: Any, position: Position | None) -> ColumnElement[bool]:
    if position is None:
        return and_(True)
    return tuple_(columns.created_at, columns.id) > position


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        user_name=row.user_name,
        project_id=row.project_id or "",
        project_name=row.project_name,
        hint=row.hint,
        scopes=tuple(sorted(effective_scopes(row.scopes, row.role))),
        models=tuple(row.models),
        limits=tuple(row.limits),
        allowed_ips=tuple(row.allowed_ips),
        created_at=row.created_at,
        expires_at=row.expires_at,
        disabled_at=row.disabled_at,
        last_used_at=row.last_used_at,
        last_used_ip=row.last_used_ip,
        signature_required=bool(row.signature_required),
    )


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=row.role,
        limits=tuple(row.limits),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )


def _project(row: Row[Any]) -> Project:
    return Project(
        id=row.id,
        name=row.name,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        is_personal=row.is_personal,
        limits=tuple(row.limits),
        created_at=row.created_at,
    )
