"""The SQL of the keys that sign tokens. Every function works in the caller's transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from lingpai.secrets.interfaces import Algorithm, TokenKey
from lingpai.secrets.tables import token_signing_keys


class SqlTokenKeyStore:
    """The keys that sign tokens."""

    def all(self, connection: Connection) -> list[TokenKey]:
        """Every key, in the order in which they come into use."""
        order = (token_signing_keys.c.use_from, token_signing_keys.c.created_at, token_signing_keys.c.id)
        return [_key(row) for row in connection.execute(select(token_signing_keys).order_by(*order))]

    def sealed(self, connection: Connection, id_: str) -> bytes | None:
        """The sealed private key, or None when there is no such key."""
        query = select(token_signing_keys.c.sealed_private_key).where(token_signing_keys.c.id == id_)
        found = connection.scalar(query)
        return None if found is None else bytes(found)

    def insert(self, connection: Connection, row: Mapping[str, Any]) -> None:
        """Add a key."""
        connection.execute(token_signing_keys.insert(), dict(row))

    def end_others(
        self, connection: Connection, algorithm: Algorithm, id_: str, *, verify_until: float
    ) -> None:
        """All other keys of the algorithm are accepted until then, or shorter where that was said before."""
        others = (token_signing_keys.c.algorithm == algorithm, token_signing_keys.c.id != id_)
        longer = token_signing_keys.c.verify_until.is_(None) | (
            token_signing_keys.c.verify_until > verify_until
        )
        connection.execute(
            update(token_signing_keys).where(*others, longer).values(verify_until=verify_until)
        )

    def delete(self, connection: Connection, id_: str) -> None:
        """Remove a key."""
        connection.execute(delete(token_signing_keys).where(token_signing_keys.c.id == id_))

    def delete_ended(self, connection: Connection, now: float) -> None:
        """Remove the keys whose tokens have all ended."""
        connection.execute(delete(token_signing_keys).where(token_signing_keys.c.verify_until <= now))


def _key(row: Row[Any]) -> TokenKey:
    return TokenKey(
        id=row.id,
        algorithm=row.algorithm,
        public_key=bytes(row.public_key),
        created_at=row.created_at,
        use_from=row.use_from,
        verify_until=row.verify_until,
    )
