"""One user or project by id or name, for whoever may see it."""

from sqlalchemy import Connection

from lingpai.identity.interfaces import Project, User
from lingpai.identity.rights import no_such_project, no_such_user
from lingpai.identity.store import SqlProjectStore, SqlUserStore


def find_user(connection: Connection, reference: str, *, only: str | None, param: str | None = None) -> User:
    """The user with this id or name; with `only` no other than that one. Raises LingpaiError, which names `param`."""
    user = SqlUserStore().find(connection, reference, only=only)
    if user is None:
        raise no_such_user(reference, param=param)
    return user


def find_project(
    connection: Connection, reference: str, *, owner: str | None, param: str | None = None
) -> Project:
    """The project with this id or name; with `owner` one of theirs. Raises LingpaiError, which names `param`."""
    project = SqlProjectStore().find(connection, reference, owner=owner)
    if project is None:
        raise no_such_project(reference, param=param)
    return project
