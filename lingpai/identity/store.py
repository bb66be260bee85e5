"""The SQL of users and keys. Every function that takes a connection works in the caller's transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    tuple_,
    update,
)

from lingpai.identity.interfaces import ApiKey, Secret, Use, User, UserState
from lingpai.identity.key_states import KeyFilter, conditions_of, disabled_because
from lingpai.identity.member_store import projects_of
from lingpai.identity.oauth.client_states import CLIENT_IS_OFF, with_client_owner
from lingpai.identity.oauth.tables import access_tokens, clients
from lingpai.identity.scopes import effective_scopes
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.tables import api_keys, project_members, projects, users
from lingpai.principal import Principal, Role
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
        project_members.c.role.label("project_role"),
    )
    .join_from(api_keys, users)
    .outerjoin(projects, projects.c.id == api_keys.c.project_id)
    .outerjoin(
        project_members,
        and_(
            project_members.c.project_id == api_keys.c.project_id,
            project_members.c.user_id == api_keys.c.user_id,
        ),
    )
)

_CREDENTIAL: Final = _KEY_COLUMNS.where(api_keys.c.id == bindparam("key_id"), api_keys.c.deleted_at.is_(None))


_personal = projects.alias("personal_project")
# A token without a registered client belongs to its user's personal project.
_ACCESS_TOKEN: Final = (
    with_client_owner(
        select(
            access_tokens,
            users.c.name.label("user_name"),
            users.c.role,
            users.c.limits.label("user_limits"),
            users.c.disabled_at.label("user_disabled_at"),
            clients.c.name.label("client_name"),
            clients.c.scopes.label("client_scopes"),
            clients.c.signature_required.label("client_signature_required"),
            clients.c.models.label("client_models"),
            clients.c.limits.label("client_limits"),
            clients.c.allowed_ips.label("client_allowed_ips"),
            clients.c.expires_at.label("client_expires_at"),
            clients.c.user_id.label("client_owner_id"),
            CLIENT_IS_OFF,
            projects.c.id.label("project_id"),
            projects.c.name.label("project_name"),
            projects.c.limits.label("project_limits"),
        )
        .join_from(access_tokens, users, users.c.id == access_tokens.c.user_id)
        .outerjoin(clients, clients.c.id == access_tokens.c.client_id)
    )
    .outerjoin(_personal, (_personal.c.owner_id == access_tokens.c.user_id) & _personal.c.is_personal)
    .outerjoin(projects, projects.c.id == func.coalesce(clients.c.project_id, _personal.c.id))
    .where(access_tokens.c.id == bindparam("token_id"))
)


class SqlCredentialStore:
    """Reads one key or access token for the keyring."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key(self, key_id: str) -> Row[Any] | None:
        """The key's row joined with its owner and project, or None.

        That adds `user_name`, `role`, `user_limits`, `user_disabled_at`, `project_name`, `project_limits` and
        `project_role`, the owner's role in the project.
        """
        with self._database.read() as connection:
            return self.credential_in(connection, key_id)

    def credential_in(self, connection: Connection, key_id: str) -> Row[Any] | None:
        """The same, in the caller's transaction."""
        return connection.execute(_CREDENTIAL, {"key_id": key_id}).one_or_none()

    def access_token(self, token_id: str) -> Row[Any] | None:
        """The access token's row joined with its owner, its client, if it has one, and the project, or None.

        That adds to the columns of the token and those of `key` the client's, each named `client_…`, and `client_is_off`.
        """
        with self._database.read() as connection:
            return connection.execute(_ACCESS_TOKEN, {"token_id": token_id}).one_or_none()


class SqlKeyStore:
    """API keys. `caller` restricts what is seen to their keys and those of their projects; None and administrators see all.

    Deleted keys are never seen.
    """

    def is_empty(self, connection: Connection) -> bool:
        """Whether no key was ever made; deleted ones count."""
        return connection.execute(select(api_keys.c.id).limit(1)).first() is None

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a key. Raises sqlalchemy.exc.IntegrityError when its owner has a key of that name."""
        connection.execute(api_keys.insert(), dict(row))

    def find(
        self, connection: Connection, reference: str, *, caller: Principal | None = None
    ) -> list[ApiKey]:
        """The key whose id is `reference`; else all keys of that name, or only the caller's own if they have one.

        Administrators get all of that name, as they are asked for the id.
        """
        query = _live_keys(caller).where(or_(api_keys.c.id == reference, api_keys.c.name == reference))
        found = [key_of(row) for row in connection.execute(query.order_by(api_keys.c.created_at))]
        own = [key for key in found if is_restricted(caller) and caller and key.user_id == caller.user_id]
        return [key for key in found if key.id == reference] or own or found

    def page(
        self,
        connection: Connection,
        wanted: KeyFilter,
        *,
        caller: Principal | None,
        after: Position | None,
        limit: int,
    ) -> list[ApiKey]:
        """Up to `limit` keys, oldest first, beginning after a position."""
        query = _live_keys(caller).where(is_after(api_keys.c, after), *conditions_of(wanted))
        query = query.order_by(api_keys.c.created_at, api_keys.c.id).limit(limit)
        return [key_of(row) for row in connection.execute(query)]

    def of_project(self, connection: Connection, project_id: str) -> list[str]:
        """The ids of a project's keys that are not deleted."""
        query = select(api_keys.c.id).where(
            api_keys.c.project_id == project_id, api_keys.c.deleted_at.is_(None)
        )
        return list(connection.scalars(query))

    def secrets(self, connection: Connection, key_id: str) -> Row[Any, Any, Any]:
        """The columns of a key's present secret: `secret_hmac`, `pepper_version`, `hint`."""
        columns = api_keys.c
        query = select(columns.secret_hmac, columns.pepper_version, columns.hint)
        return connection.execute(query.where(columns.id == key_id)).one()

    def update(self, connection: Connection, key_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a key. Raises sqlalchemy.exc.IntegrityError when the new name is taken."""
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(dict(values)))

    def delete(self, connection: Connection, key_ids: Sequence[str], *, now: float) -> None:
        """Delete keys for good: their secrets are wiped, their names stay for the sake of usage reports."""
        for key_id in key_ids:
            self.update(connection, key_id, {"deleted_at": now, "secret_hmac": None, "old_secret_hmac": None})
        SqlSigningKeyStore().delete_of_deleted(connection)

    def touch(self, connection: Connection, uses: Sequence[Use]) -> None:
        """Note last uses, of the key and of its secrets; an earlier one never replaces a later one."""
        if not uses:
            return
        values = [
            {
                "key_id": use.id,
                "time": use.time,
                "address": use.address,
                "is_old_secret": use.is_old_secret,
            }
            for use in uses
        ]
        for statement in _TOUCHES:
            connection.execute(statement, values)


def _touches() -> Iterator[Update]:
    """Of the key as a whole, of its present secret, of the one before. Those of before the last rotation were the old one's."""
    columns = api_keys.c
    time, is_old = bindparam("time", type_=Double), bindparam("is_old_secret", type_=Boolean)
    since_rotation = time >= columns.rotated_at
    before_rotation = and_(time >= columns.old_created_at, time < columns.rotated_at)

    def touch(column: Column[float], *conditions: ColumnElement[bool]) -> Update:
        is_later = func.coalesce(column, 0.0) < time
        return update(api_keys).where(columns.id == bindparam("key_id"), is_later, *conditions)

    yield touch(columns.last_used_at).values(last_used_at=time, last_used_ip=bindparam("address"))
    yield touch(columns.secret_last_used_at, not_(is_old), since_rotation).values(secret_last_used_at=time)
    was_old = or_(and_(is_old, since_rotation), and_(not_(is_old), before_rotation))
    yield touch(columns.old_last_used_at, was_old).values(old_last_used_at=time)


_TOUCHES: Final = tuple(_touches())


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
        found = [user_of(row) for row in connection.execute(query)]
        return next((user for user in found if user.id == reference), found[0] if found else None)

    def page(
        self,
        connection: Connection,
        *,
        only: str | None,
        search: str | None = None,
        state: UserState | None = None,
        role: Role | None = None,
        after: Position | None,
        limit: int,
    ) -> list[User]:
        """Up to `limit` users, oldest first, beginning after a position; with `search` in their name."""
        query = _visible_users(only).where(is_after(users.c, after)).order_by(users.c.created_at, users.c.id)
        if search is not None:
            query = query.where(users.c.name.icontains(search, autoescape=True))
        if state is not None:
            query = query.where((users.c.disabled_at.is_(None)) == (state == "active"))
        if role is not None:
            query = query.where(users.c.role == role)
        return [user_of(row) for row in connection.execute(query.limit(limit))]

    def update(self, connection: Connection, user_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a user."""
        connection.execute(update(users).where(users.c.id == user_id).values(dict(values)))

    def has_other_admin(self, connection: Connection, user_id: str) -> bool:
        """Whether somebody else is an administrator who is not disabled."""
        others = select(users.c.id).where(
            users.c.role == "admin", users.c.disabled_at.is_(None), users.c.id != user_id
        )
        return connection.execute(others.limit(1)).first() is not None


def is_restricted(caller: Principal | None) -> bool:
    """Whether `caller` does not see everything."""
    return caller is not None and not caller.is_admin


def _live_keys(caller: Principal | None) -> Select[Any]:
    query = _KEY_COLUMNS.where(api_keys.c.deleted_at.is_(None))
    if caller is None or caller.is_admin:
        return query
    return query.where(
        or_(api_keys.c.user_id == caller.user_id, api_keys.c.project_id.in_(projects_of(caller.user_id)))
    )


def _visible_users(only: str | None) -> Select[Any]:
    query: Select[Any] = select(users).where(users.c.deleted_at.is_(None))
    return query if only is None else query.where(users.c.id == only)


def is_after(columns: Any, position: Position | None) -> ColumnElement[bool]:
    """The condition for what comes behind `position` in the order of time and id; None is before everything."""
    if position is None:
        return and_(True)
    return tuple_(columns.created_at, columns.id) > position


def key_of(row: Row[Any]) -> ApiKey:
    """The key of a row of `SqlCredentialStore`, without anything secret."""
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
        disabled_because=disabled_because(row),
        last_used_at=row.last_used_at,
        last_used_ip=row.last_used_ip,
        rotated_at=row.rotated_at,
        secret=Secret(
            hint=row.hint,
            created_at=row.created_at if row.rotated_at is None else row.rotated_at,
            expires_at=None,
            last_used_at=row.last_used_at if row.rotated_at is None else row.secret_last_used_at,
        ),
        old_secret=_old_secret(row),
        signature_required=bool(row.signature_required),
    )


def _old_secret(row: Row[Any]) -> Secret | None:
    if row.old_secret_hmac is None:
        return None
    return Secret(
        hint=row.old_hint,
        created_at=row.old_created_at,
        expires_at=row.old_expires_at,
        last_used_at=row.old_last_used_at,
    )


def user_of(row: Row[Any]) -> User:
    """The user in a row of the table."""
    return User(
        id=row.id,
        name=row.name,
        role=row.role,
        limits=tuple(row.limits),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        password_changed_at=row.password_changed_at,
    )
