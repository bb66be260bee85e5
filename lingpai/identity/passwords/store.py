"""The SQL of passwords and of the places where users have signed in. Every function works in the caller's transaction."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, and_, delete, func, select, update

from lingpai.identity.interfaces import User
from lingpai.identity.sessions.tables import sign_in_places
from lingpai.identity.store import user_of
from lingpai.identity.tables import users

MOST_PLACES: Final = 10
_TOUCH_EVERY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class PasswordAccount:
    """A user, the hash of their password (None: no password can sign in), and whether they came from here before."""

    user: User
    hash: str | None = field(repr=False)
    is_known_place: bool


class SqlPasswordStore:
    """Passwords and places of users who are not deleted."""

    def find(self, connection: Connection, name: str, network: str | None) -> PasswordAccount | None:
        """The user with exactly this name, or None. Ids are no names here.

        One query whoever it is: what is asked for known users only would tell them by time.
        """
        place = and_(sign_in_places.c.user_id == users.c.id, sign_in_places.c.network == (network or ""))
        query = select(users, sign_in_places.c.network.label("place")).outerjoin(sign_in_places, place)
        row = connection.execute(
            query.where(users.c.name == name, users.c.deleted_at.is_(None))
        ).one_or_none()
        return (
            None if row is None else PasswordAccount(user_of(row), row.password_hash, row.place is not None)
        )

    def hashes(self, connection: Connection, most: int) -> list[str]:
        """The hashes of up to `most` users."""
        query = select(users.c.password_hash).where(users.c.password_hash.is_not(None)).limit(most)
        return list(connection.execute(query).scalars())

    def set_hash(self, connection: Connection, user_id: str, hash_: str, now: float) -> None:
        """Give the user a new password."""
        values = {"password_hash": hash_, "password_changed_at": now}
        connection.execute(update(users).where(users.c.id == user_id).values(values))

    def replace_hash(self, connection: Connection, user_id: str, *, old: str, new: str) -> None:
        """Keep the same password under other parameters; nothing happens when it was changed meanwhile."""
        same = (users.c.id == user_id, users.c.password_hash == old)
        connection.execute(update(users).where(*same).values(password_hash=new))

    def note_place(self, connection: Connection, user_id: str, network: str, now: float) -> None:
        """The user has signed in from `network`. The places that were used longest ago make room."""
        mine = sign_in_places.c.user_id == user_id
        here = (mine, sign_in_places.c.network == network)
        last_used = connection.execute(select(sign_in_places.c.last_used_at).where(*here)).scalar()
        if last_used is not None:
            if now - last_used > _TOUCH_EVERY_S:
                connection.execute(update(sign_in_places).where(*here).values(last_used_at=now))
            return
        row = {"user_id": user_id, "network": network, "last_used_at": now}
        connection.execute(sign_in_places.insert(), row)
        count = connection.execute(select(func.count()).where(mine)).scalar_one()
        if count > MOST_PLACES:
            oldest = select(sign_in_places.c.network).where(mine).order_by(sign_in_places.c.last_used_at)
            networks = connection.execute(oldest.limit(count - MOST_PLACES)).scalars().all()
            connection.execute(delete(sign_in_places).where(mine, sign_in_places.c.network.in_(networks)))
