"""The SQL of signing keys. Every function that takes a connection works in the caller's transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, select, update

from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.oauth.tables import clients
from lingpai.identity.signing.interfaces import SigningKey
from lingpai.identity.signing.tables import signing_keys
from lingpai.identity.tables import api_keys


class StoredKey(NamedTuple):
    """A signing key and, of HMAC, its sealed secret."""

    key: SigningKey
    sealed_secret: bytes | None


class SqlSigningKeyStore:
    """Signing keys. A deleted one is gone: nothing refers to it."""

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a signing key."""
        connection.execute(signing_keys.insert(), dict(row))

    def of_owner(self, connection: Connection, owner_id: str) -> list[SigningKey]:
        """Those of an API key, or of a client (`cl-lp-…`), oldest first."""
        columns = signing_keys.c
        column, id_ = columns.key_id, owner_id
        if owner_id.startswith(CLIENT_ID_PREFIX):
            column, id_ = columns.client_id, owner_id.removeprefix(CLIENT_ID_PREFIX)
        query = select(signing_keys).where(column == id_).order_by(columns.created_at, columns.id)
        return [_signing_key(row) for row in connection.execute(query)]

    def find(self, connection: Connection, id_: str) -> StoredKey | None:
        """The signing key with this id, or None."""
        row = connection.execute(select(signing_keys).where(signing_keys.c.id == id_)).one_or_none()
        return None if row is None else StoredKey(_signing_key(row), row.sealed_secret)

    def delete(self, connection: Connection, id_: str) -> None:
        """Remove a signing key, and its secret with it."""
        connection.execute(signing_keys.delete().where(signing_keys.c.id == id_))

    def delete_of_key(self, connection: Connection, key_id: str) -> list[SigningKey]:
        """Remove those of an API key, which are returned, and their secrets with them."""
        gone = self.of_owner(connection, key_id)
        connection.execute(signing_keys.delete().where(signing_keys.c.key_id == key_id))
        return gone

    def delete_of_deleted(self, connection: Connection) -> None:
        """Remove those of API keys and clients that are gone, and their secrets with them."""
        for column, owners in ((signing_keys.c.key_id, api_keys), (signing_keys.c.client_id, clients)):
            gone = select(owners.c.id).where(owners.c.deleted_at.is_not(None))
            connection.execute(signing_keys.delete().where(column.in_(gone)))

    def touch(self, connection: Connection, uses: Sequence[tuple[str, float]]) -> None:
        """Note last uses (id and time); an earlier one never replaces a later one."""
        statement = (
            update(signing_keys)
            .where(
                signing_keys.c.id == bindparam("used_id"),
                func.coalesce(signing_keys.c.last_used_at, 0.0) < bindparam("time"),
            )
            .values(last_used_at=bindparam("time"))
        )
        connection.execute(statement, [{"used_id": id_, "time": time} for id_, time in uses])


def _signing_key(row: Row[Any]) -> SigningKey:
    return SigningKey(
        id=row.id,
        name=row.name,
        algorithm=row.algorithm,
        key_id=row.key_id,
        client_id=None if row.client_id is None else CLIENT_ID_PREFIX + row.client_id,
        public_key=row.public_key,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
