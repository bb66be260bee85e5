"""What ends with a password, or when its user signs out everywhere: the tokens that it gave (RFC 9700, section 2.2.2)."""

import time
from collections.abc import Callable

from sqlalchemy import Connection, func, select

from lingpai.identity.oauth.tables import token_families
from lingpai.identity.oauth.token_store import SqlTokenStore


class SqlTokenRevoker:
    """Revokes in the database. What is remembered of tokens is dropped when the change of the user is told."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._store = SqlTokenStore()

    def revoke_of_user(self, connection: Connection, user_id: str, because: str) -> int:
        """Revoke every token family of the user, and delete the access tokens that came out of them.

        Returns how many families were alive.
        """
        now = self._clock()
        alive = select(func.count()).where(
            token_families.c.user_id == user_id,
            token_families.c.revoked_at.is_(None),
            token_families.c.expires_at > now,
        )
        count = connection.execute(alive).scalar_one()
        self._store.revoke_families_of_user(connection, user_id, now=now, because=because)
        return count
