"""What ends with a password: the tokens that were given to who knew the old one (RFC 9700, section 2.2.2)."""

import time
from collections.abc import Callable

from sqlalchemy import Connection, delete, select, update

from lingpai.identity.oauth.tables import access_tokens, token_families


class SqlTokenRevoker:
    """Revokes in the database. What is remembered of tokens is dropped when the change of the user is told."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def revoke_of_user(self, connection: Connection, user_id: str, because: str) -> None:
        """Revoke every token family of the user, and delete the access tokens that came out of them."""
        families = select(token_families.c.id).where(token_families.c.user_id == user_id)
        connection.execute(delete(access_tokens).where(access_tokens.c.family_id.in_(families)))
        live = (token_families.c.user_id == user_id, token_families.c.revoked_at.is_(None))
        values = {"revoked_at": self._clock(), "revoked_because": because}
        connection.execute(update(token_families).where(*live).values(values))
