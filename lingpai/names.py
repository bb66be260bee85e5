"""Names and owners for identifiers, across domains: usage and events speak of keys and users without importing identity."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Select, or_, select

from lingpai.identity.member_store import people_around, projects_of
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX
from lingpai.identity.oauth.tables import clients
from lingpai.identity.tables import api_keys, projects, users
from lingpai.storage.database import Database

_MOST_IDS: Final = 500
"""SQLite bounds the variables of one statement."""


class Names:
    """Fulfils metering's `UsageNames`: what has been deleted keeps its name. All methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_names(self, key_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these keys."""
        return self._names(api_keys, key_ids)

    def client_names(self, client_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these clients (`cl-lp-…`)."""
        found = self._names(clients, [id_.removeprefix(CLIENT_ID_PREFIX) for id_ in client_ids])
        return {CLIENT_ID_PREFIX + id_: name for id_, name in found.items()}

    def user_names(self, user_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these users."""
        return self._names(users, user_ids)

    def project_names(self, project_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these projects."""
        return self._names(projects, project_ids)

    def find_key(self, text: str, *, owner: str | None, seen_by: str | None) -> str | None:
        """The key with this id, or the one with this name: one's own, one in use before a deleted one, the newest first."""
        columns = api_keys.c
        query = select(columns.id).where((columns.id == text) | (columns.name == text))
        if owner is not None:
            query = query.where(columns.user_id == owner)
        order: list[Any] = [columns.id != text]
        if seen_by is not None:
            query = query.where((columns.user_id == seen_by) | columns.project_id.in_(projects_of(seen_by)))
            order.append(columns.user_id != seen_by)
        order += [columns.deleted_at.is_not(None), columns.created_at.desc()]
        return self._one(query.order_by(*order).limit(1))

    def find_client(self, text: str, *, owner: str | None, seen_by: str | None) -> str | None:
        """The client with this id (`cl-lp-…`), or the one with this name: one's own, one in use before a deleted one, the newest first."""
        id_ = text.removeprefix(CLIENT_ID_PREFIX) if text.startswith(CLIENT_ID_PREFIX) else ""
        columns = clients.c
        query = select(columns.id).where((columns.id == id_) | (columns.name == text))
        if owner is not None:
            query = query.where(columns.user_id == owner)
        order: list[Any] = [columns.id != id_]
        if seen_by is not None:
            query = query.where((columns.user_id == seen_by) | columns.project_id.in_(projects_of(seen_by)))
            order.append(columns.user_id != seen_by)
        order += [columns.deleted_at.is_not(None), columns.created_at.desc()]
        found = self._one(query.order_by(*order).limit(1))
        return None if found is None else CLIENT_ID_PREFIX + found

    def find_user(self, text: str, *, seen_by: str | None) -> str | None:
        """The user with this id or name; with `seen_by` that user, or somebody who shares a project with them."""
        query = _with_id_or_name(users, text)
        if seen_by is not None:
            query = query.where((users.c.id == seen_by) | users.c.id.in_(people_around(seen_by)))
        return self._one(query)

    def find_project(self, text: str, *, seen_by: str | None) -> str | None:
        """The project with this id or name; with `seen_by` only one that this user has a role, a key or a client in."""
        query = _with_id_or_name(projects, text)
        if seen_by is not None:
            of_theirs = [
                projects.c.id.in_(select(table.c.project_id).where(table.c.user_id == seen_by))
                for table in (api_keys, clients)
            ]
            query = query.where(or_(projects.c.id.in_(projects_of(seen_by)), *of_theirs))
        return self._one(query)

    def shared_projects(self, user_id: str) -> tuple[str, ...]:
        """The projects in which a user has a role and is not alone by definition: not the personal one."""
        query = select(projects.c.id).where(projects.c.id.in_(projects_of(user_id)), ~projects.c.is_personal)
        with self._database.read() as connection:
            return tuple(connection.scalars(query.order_by(projects.c.id)))

    def _names(self, table: Any, ids: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with self._database.read() as connection:
            for part in _in_parts(list(ids)):
                rows = connection.execute(select(table.c.id, table.c.name).where(table.c.id.in_(part)))
                found.update((row.id, row.name) for row in rows)
        return found

    def _one(self, query: Any) -> str | None:
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
            return found


def _with_id_or_name(table: Any, text: str) -> Select[Any]:
    query = select(table.c.id).where((table.c.id == text) | (table.c.name == text))
    return query.order_by(table.c.id != text).limit(1)


def _in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS))


class Owners:
    """Fulfils events' `SubjectOwners`: keys and clients belong to users, users to themselves, projects to all with a role, models to nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def owners(self, subjects: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The ids of the users who own these subjects; the rest is left out. Blocks."""
        found = {
            (kind, id_): id_.partition(" ")[0] for kind, id_ in subjects if kind in {"user", "user_model"}
        }
        with self._database.read() as connection:
            for kind, owned, owner in (
                ("key", api_keys.c.id, api_keys.c.user_id),
                ("client", CLIENT_ID_PREFIX + clients.c.id, clients.c.user_id),
            ):
                for part in _in_parts([id_ for each, id_ in subjects if each == kind]):
                    rows = connection.execute(select(owned, owner).where(owned.in_(part)))
                    found.update(((kind, id_), user_id) for id_, user_id in rows)
        return found

    def projects(self, user_id: str) -> tuple[str, ...]:
        """The ids of the projects that a user has a role in now. Blocks."""
        with self._database.read() as connection:
            return tuple(connection.scalars(projects_of(user_id)))
