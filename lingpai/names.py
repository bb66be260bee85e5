"""Names for identifiers, across domains: usage reports and limits speak of keys and users without importing identity."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import select

from lingpai.identity.interfaces import ApiKey, User
from lingpai.identity.schemas import KeyUpdate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.tables import api_keys, users
from lingpai.principal import Principal
from lingpai.quotas.interfaces import LimitedSubject, Subject, SubjectKind
from lingpai.storage.database import Database

MOST_SUBJECTS: Final = 200
"""Subjects in one list of limits. Whoever has more asks for one key or user."""


class Names:
    """Fulfils metering's `UsageNames`: what has been deleted keeps its name. All methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_names(self, key_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these keys."""
        return self._names(api_keys, key_ids)

    def user_names(self, user_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these users."""
        return self._names(users, user_ids)

    def find_key(self, text: str, *, user_id: str | None) -> str | None:
        """The key with this id, or the one with this name: a key in use before a deleted one, the newest first."""
        columns = api_keys.c
        query = (
            select(columns.id)
            .where((columns.id == text) | (columns.name == text))
            .order_by(columns.id != text, columns.deleted_at.is_not(None), columns.created_at.desc())
            .limit(1)
        )
        if user_id is not None:
            query = query.where(columns.user_id == user_id)
        return self._one(query)

    def find_user(self, text: str) -> str | None:
        """The user with this id or name."""
        query = (
            select(users.c.id)
            .where((users.c.id == text) | (users.c.name == text))
            .order_by(users.c.id != text)
        )
        return self._one(query.limit(1))

    def _names(self, table: Any, ids: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        wanted = list(ids)
        with self._database.read() as connection:
            for start in range(0, len(wanted), 500):  # SQLite bounds the variables of one statement
                part = wanted[start : start + 500]
                rows = connection.execute(select(table.c.id, table.c.name).where(table.c.id.in_(part)))
                found.update((row.id, row.name) for row in rows)
        return found

    def _one(self, query: Any) -> str | None:
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
            return found


class Subjects:
    """Fulfils quotas' `SubjectDirectory` with identity's keys and users. All methods block."""

    def __init__(self, keys: Keys, users: Users) -> None:
        self._keys = keys
        self._users = users

    def find(self, caller: Principal, kind: SubjectKind, id_or_name: str) -> LimitedSubject:
        """The key or user that `caller` sees. Raises LingpaiError `not_found`."""
        if kind == "key":
            return _of_key(self._keys.get(caller, id_or_name))
        return _of_user(self._users.get(caller, id_or_name))

    def all(self, caller: Principal) -> list[LimitedSubject]:
        """Users, then keys, that have limits; the first `MOST_SUBJECTS` of each kind."""
        subjects = [_of_user(user) for user in self._users.list(caller, limit=MOST_SUBJECTS)]
        subjects += [_of_key(key) for key in self._keys.list(caller, limit=MOST_SUBJECTS)]
        return [subject for subject in subjects if subject.limits]

    def replace_limits(self, caller: Principal, subject: Subject, limits: tuple[str, ...]) -> LimitedSubject:
        """Store other limits."""
        kind, id_ = subject
        written = list(limits) or ["none"]
        if kind == "key":
            return _of_key(self._keys.update(caller, id_, KeyUpdate(limits=written)))
        return _of_user(self._users.update(caller, id_, UserUpdate(limits=written)))


def _of_key(key: ApiKey) -> LimitedSubject:
    return LimitedSubject(kind="key", id=key.id, name=key.name, limits=key.limits)


def _of_user(user: User) -> LimitedSubject:
    return LimitedSubject(kind="user", id=user.id, name=user.name, limits=user.limits)
