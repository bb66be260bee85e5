"""The SQL of identity. Every function that takes a connection works in the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
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

from lingpai.identity.interfaces import ApiKey, KeyUse, User
from lingpai.identity.scopes import effective_scopes
from lingpai.identity.tables import api_keys, users
from lingpai.storage.database import Database

Position = tuple[float, str]
"""The sort key of lists: when something was made, and its id."""

_KEY_COLUMNS: Final = select(
    api_keys,
    users.c.name.label("user_name"),
    users.c.role,
    users.c.limits.label("user_limits"),
    users.c.disabled_at.label("user_disabled_at"),
).join_from(api_keys, users)

_CREDENTIAL: Final = _KEY_COLUMNS.where(api_keys.c.id == bindparam("key_id"), api_keys.c.deleted_at.is_(None))


class SqlCredentialStore:
    """Reads one key for the keyring."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def credential(self, key_id: str) -> Row[Any] | None:
        """The key's row joined with its owner (`user_name`, `role`, `user_limits`, `user_disabled_at`), or None."""
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
        after: Position | None,
        limit: int,
    ) -> list[ApiKey]:
        """Up to `limit` keys, oldest first, beginning after a position."""
        query = _live_keys(owner).where(_after(api_keys.c, after))
        if name is not None:
            query = query.where(api_keys.c.name == name)
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

    def names(self, connection: Connection, ids: Iterable[str]) -> dict[str, str]:
        """The names of keys by id, those of deleted ones too."""
        rows = connection.execute(select(api_keys.c.id, api_keys.c.name).where(api_keys.c.id.in_(set(ids))))
        return {row.id: row.name for row in rows}


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

    def names(self, connection: Connection, ids: Iterable[str]) -> dict[str, str]:
        """The names of users by id."""
        rows = connection.execute(select(users.c.id, users.c.name).where(users.c.id.in_(set(ids))))
        return {row.id: row.name for row in rows}


def _live_keys(owner: str | None) -> Select[Any]:
    query = _KEY_COLUMNS.where(api_keys.c.deleted_at.is_(None))
    return query if owner is None else query.where(api_keys.c.user_id == owner)


def _visible_users(only: str | None) -> Select[Any]:
    query: Select[Any] = select(users)
    return query if only is None else query.where(users.c.id == only)


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
