"""The SQL of tokens and their families. Every function works in the caller's transaction."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, delete, exists, func, insert, select, update

from lingpai.identity.oauth.client_states import CLIENT_IS_OFF, with_client_owner
from lingpai.identity.oauth.tables import access_tokens, clients, refresh_tokens, token_families
from lingpai.identity.tables import users
from lingpai.storage.database import Database

_MOST_EXPIRED: Final = 1000
"""At most so many rows go in one transaction, so that nobody waits long for the write lock."""

_OF_CLIENT: Final = (
    clients.c.scopes.label("client_scopes"),
    clients.c.disabled_at.label("client_disabled_at"),
    clients.c.deleted_at.label("client_deleted_at"),
    clients.c.expires_at.label("client_expires_at"),
    CLIENT_IS_OFF,
)
_INSERT_ACCESS_TOKEN: Final = insert(access_tokens)
_REFRESH_TOKEN: Final = with_client_owner(
    select(
        refresh_tokens,
        token_families.c.client_id,
        token_families.c.user_id,
        token_families.c.scopes,
        token_families.c.expires_at.label("family_expires_at"),
        token_families.c.revoked_at,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.disabled_at.label("user_disabled_at"),
        *_OF_CLIENT,
    )
    .join_from(refresh_tokens, token_families)
    .join(users, users.c.id == token_families.c.user_id)
    .outerjoin(clients, clients.c.id == token_families.c.client_id)
).where(refresh_tokens.c.id == bindparam("token_id"))
_ACCESS_TOKEN: Final = with_client_owner(
    select(
        access_tokens,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.disabled_at.label("user_disabled_at"),
        *_OF_CLIENT,
    )
    .join_from(access_tokens, users, users.c.id == access_tokens.c.user_id)
    .outerjoin(clients, clients.c.id == access_tokens.c.client_id)
).where(access_tokens.c.id == bindparam("token_id"))


class SqlTokenStore:
    """Access tokens, refresh tokens, and the families that they belong to."""

    def add_access_token(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add an access token."""
        connection.execute(_INSERT_ACCESS_TOKEN, row)

    def add_family(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a family."""
        connection.execute(insert(token_families), row)

    def add_refresh_token(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a refresh token to a family."""
        connection.execute(insert(refresh_tokens), row)

    def access_token(self, connection: Connection, token_id: str) -> Row[Any] | None:
        """An access token joined with its owner, and with its client's `client_…` columns, or None."""
        return connection.execute(_ACCESS_TOKEN, {"token_id": token_id}).one_or_none()

    def refresh_token(self, connection: Connection, token_id: str) -> Row[Any] | None:
        """A refresh token joined with its family and owner, and with its client's `client_…` columns, or None.

        That adds `client_id`, `user_id`, `scopes`, `family_expires_at`, `revoked_at`, `user_name`, `role` and
        `user_disabled_at`.
        """
        return connection.execute(_REFRESH_TOKEN, {"token_id": token_id}).one_or_none()

    def use_refresh_token(
        self, connection: Connection, token_id: str, *, now: float, successor_id: str
    ) -> bool:
        """Mark a refresh token as used, whose successor is `successor_id`. False when it was used before."""
        statement = update(refresh_tokens).where(
            refresh_tokens.c.id == token_id, refresh_tokens.c.used_at.is_(None)
        )
        return connection.execute(statement.values(used_at=now, successor_id=successor_id)).rowcount == 1

    def revoke_family(self, connection: Connection, family_id: str, *, now: float, because: str) -> list[str]:
        """End a family and delete its access tokens, whose ids are returned. One that has ended keeps its reason."""
        connection.execute(
            update(token_families)
            .where(token_families.c.id == family_id, token_families.c.revoked_at.is_(None))
            .values(revoked_at=now, revoked_because=because)
        )
        return self._delete_access_tokens(connection, access_tokens.c.family_id == family_id)

    def delete_access_token(self, connection: Connection, token_id: str) -> list[str]:
        """Delete an access token, which revokes it. Returns its id, or nothing when there was none."""
        return self._delete_access_tokens(connection, access_tokens.c.id == token_id)

    def delete_own_of_client(self, connection: Connection, client_id: str) -> list[str]:
        """Delete the access tokens that a client got on its own behalf, whose ids are returned."""
        is_own = and_(access_tokens.c.client_id == client_id, access_tokens.c.family_id.is_(None))
        return self._delete_access_tokens(connection, is_own)

    def delete_of_client(self, connection: Connection, client_id: str, *, now: float) -> list[str]:
        """End all families of a client and delete its access tokens, whose ids are returned."""
        connection.execute(
            update(token_families)
            .where(token_families.c.client_id == client_id, token_families.c.revoked_at.is_(None))
            .values(revoked_at=now, revoked_because="client deleted")
        )
        return self._delete_access_tokens(connection, access_tokens.c.client_id == client_id)

    def revoke_families_of_user(
        self, connection: Connection, user_id: str, *, now: float, because: str
    ) -> list[str]:
        """End all families of a user and delete their access tokens, whose ids are returned."""
        connection.execute(
            update(token_families)
            .where(token_families.c.user_id == user_id, token_families.c.revoked_at.is_(None))
            .values(revoked_at=now, revoked_because=because)
        )
        families = select(token_families.c.id).where(token_families.c.user_id == user_id)
        return self._delete_access_tokens(connection, access_tokens.c.family_id.in_(families))

    def delete_expired(self, connection: Connection, *, now: float) -> int:
        """Delete tokens and families that have ended by themselves, up to some thousand. Returns how many rows went."""
        expired = select(access_tokens.c.id).where(access_tokens.c.expires_at < now).limit(_MOST_EXPIRED)
        gone = connection.execute(delete(access_tokens).where(access_tokens.c.id.in_(expired))).rowcount
        # A revoked family stays until its end, too: its tokens must go on being recognised as used or revoked. It may
        # have thousands of them, so it goes when none is left. Its access tokens ended with it, if not before.
        ended = select(token_families.c.id).where(token_families.c.expires_at < now).limit(_MOST_EXPIRED)
        old = select(refresh_tokens.c.id).where(refresh_tokens.c.family_id.in_(ended)).limit(_MOST_EXPIRED)
        gone += connection.execute(delete(refresh_tokens).where(refresh_tokens.c.id.in_(old))).rowcount
        empty = ended.where(
            ~exists().where(refresh_tokens.c.family_id == token_families.c.id),
            ~exists().where(access_tokens.c.family_id == token_families.c.id),
        )
        return (
            gone + connection.execute(delete(token_families).where(token_families.c.id.in_(empty))).rowcount
        )

    def _delete_access_tokens(self, connection: Connection, which: Any) -> list[str]:
        ids = list(connection.scalars(select(access_tokens.c.id).where(which)))
        if ids:
            connection.execute(delete(access_tokens).where(which))
        return ids


class SqlTokenIds:
    """Reads the ids of access tokens, a few at a time: the keyring's filter is made of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_ids(self) -> Iterator[str]:
        """The ids of all access tokens."""
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=500).execute(select(access_tokens.c.id))
            yield from rows.scalars()

    def count_keys(self) -> int:
        """How many there are."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(access_tokens)).scalar_one()
