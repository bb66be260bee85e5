"""The SQL of clients. Every function that takes a connection works in the caller's transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, or_, select, update

from lingpai.identity.interfaces import Use
from lingpai.identity.key_states import KeyFilter, conditions_of, disabled_because
from lingpai.identity.member_store import projects_of
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, Client
from lingpai.identity.oauth.tables import clients
from lingpai.identity.scopes import effective_scopes
from lingpai.identity.store import Position, is_after, is_restricted
from lingpai.identity.tables import project_members, projects, users
from lingpai.principal import Principal
from lingpai.storage.database import Database

_COLUMNS: Final = (
    select(
        clients,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.disabled_at.label("user_disabled_at"),
        projects.c.name.label("project_name"),
        project_members.c.role.label("project_role"),
    )
    .join_from(clients, users)
    .join(projects, projects.c.id == clients.c.project_id)
    .outerjoin(
        project_members,
        and_(
            project_members.c.project_id == clients.c.project_id,
            project_members.c.user_id == clients.c.user_id,
        ),
    )
)
NO_OLD_SECRET: Final[Mapping[str, None]] = dict.fromkeys(
    ("old_secret_hmac", "old_pepper_version", "old_hint", "old_expires_at")
)
"""The columns of the secret before, where there is none."""

_LIVE: Final = _COLUMNS.where(clients.c.deleted_at.is_(None))
_BY_ID: Final = _LIVE.where(clients.c.id == bindparam("client_id"))


class SqlClientStore:
    """Clients. `caller` restricts what is seen to theirs and those of their projects; None and administrators see all.

    Deleted ones are never seen.
    """

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a client. Raises sqlalchemy.exc.IntegrityError when its owner has a client of that name."""
        connection.execute(clients.insert(), dict(row))

    def find(
        self, connection: Connection, reference: str, *, caller: Principal | None = None
    ) -> list[Client]:
        """The client whose id (`cl-lp-…`) is `reference`; else all of that name, or only the caller's own if they have one.

        Administrators get all of that name, as they are asked for the id.
        """
        id_ = reference.removeprefix(CLIENT_ID_PREFIX) if reference.startswith(CLIENT_ID_PREFIX) else None
        query = _visible(caller).where(or_(clients.c.id == id_, clients.c.name == reference))
        found = [client_of(row) for row in connection.execute(query.order_by(clients.c.created_at))]
        own = [each for each in found if is_restricted(caller) and caller and each.user_id == caller.user_id]
        return [client for client in found if client.id == id_] or own or found

    def row(self, connection: Connection, id_: str) -> Row[Any] | None:
        """The row of a client, as `SqlClientReader` reads it, by what follows `cl-lp-`."""
        return connection.execute(_BY_ID, {"client_id": id_}).one_or_none()

    def page(
        self,
        connection: Connection,
        wanted: KeyFilter,
        *,
        caller: Principal | None,
        after: Position | None,
        limit: int,
    ) -> list[Client]:
        """Up to `limit` of the wanted clients, oldest first, beginning after a position."""
        query = _visible(caller).where(is_after(clients.c, after), *conditions_of(wanted, clients))
        query = query.order_by(clients.c.created_at, clients.c.id).limit(limit)
        return [client_of(row) for row in connection.execute(query)]

    def update(self, connection: Connection, id_: str, values: Mapping[str, Any]) -> None:
        """Change columns of a client. Raises sqlalchemy.exc.IntegrityError when the new name is taken."""
        connection.execute(update(clients).where(clients.c.id == id_).values(dict(values)))

    def rotate(
        self, connection: Connection, id_: str, secret: Mapping[str, Any], *, now: float, overlap_s: float
    ) -> None:
        """Put `secret` (its columns) in the place of the present one, which works `overlap_s` seconds longer."""
        columns = clients.c
        old = (
            {
                "old_secret_hmac": columns.secret_hmac,
                "old_pepper_version": columns.pepper_version,
                "old_hint": columns.hint,
                "old_expires_at": now + overlap_s,
            }
            if overlap_s
            else NO_OLD_SECRET
        )
        statement = update(clients).where(columns.id == id_).values(**old, **secret, rotated_at=now)
        connection.execute(statement)

    def touch(self, connection: Connection, uses: Sequence[Use]) -> None:
        """Note last uses; an earlier one never replaces a later one."""
        statement = (
            update(clients)
            .where(
                clients.c.id == bindparam("use_id"),
                func.coalesce(clients.c.last_used_at, 0.0) < bindparam("time"),
            )
            .values(last_used_at=bindparam("time"), last_used_ip=bindparam("address"))
        )
        # No key but these: one that is called like a column would be set as well.
        rows = [
            {"use_id": each.id.removeprefix(CLIENT_ID_PREFIX), "time": each.time, "address": each.address}
            for each in uses
        ]
        connection.execute(statement, rows)


class SqlClientReader:
    """Reads one client for authentication."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def client(self, id_: str) -> Row[Any] | None:
        """The row of a client that is not deleted, joined with its owner and project. Blocks.

        That adds `user_name`, `role`, `user_disabled_at`, `project_name` and `project_role`, the owner's in the project.
        """
        with self._database.read() as connection:
            return connection.execute(_BY_ID, {"client_id": id_}).one_or_none()


class SqlClientIds:
    """Reads the ids of clients, a few at a time, for the filter that `KnownClients` asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_ids(self) -> Iterator[str]:
        """The ids of all clients, deleted ones too."""
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=500).execute(select(clients.c.id))
            yield from rows.scalars()

    def count_keys(self) -> int:
        """How many there are."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(clients)).scalar_one()


def client_of(row: Row[Any]) -> Client:
    """What everybody may know of a client."""
    return Client(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        user_name=row.user_name,
        project_id=row.project_id,
        project_name=row.project_name,
        hint=row.hint,
        grants=tuple(row.grants),
        scopes=tuple(sorted(effective_scopes(row.scopes, row.role))),
        models=tuple(row.models),
        limits=tuple(row.limits),
        allowed_ips=tuple(row.allowed_ips),
        signature_required=row.signature_required,
        token_lifetime_s=row.token_lifetime_s,
        created_at=row.created_at,
        old_hint=row.old_hint,
        old_expires_at=row.old_expires_at,
        rotated_at=row.rotated_at,
        expires_at=row.expires_at,
        disabled_at=row.disabled_at,
        disabled_because=disabled_because(row, "clients"),
        last_used_at=row.last_used_at,
        last_used_ip=row.last_used_ip,
    )


def _visible(caller: Principal | None) -> Select[Any]:
    if caller is None or caller.is_admin:
        return _LIVE
    return _LIVE.where(
        or_(clients.c.user_id == caller.user_id, clients.c.project_id.in_(projects_of(caller.user_id)))
    )
