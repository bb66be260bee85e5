"""One user, project or key by id or name, for whoever may see it."""

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.rights import no_such_project, no_such_user
from lingpai.identity.store import SqlKeyStore, SqlProjectStore, SqlUserStore


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


def find_key(connection: Connection, reference: str, *, owner: str | None) -> ApiKey:
    """The key with this id, or the only one of this name; with `owner` one of theirs. Raises LingpaiError."""
    found = SqlKeyStore().find(connection, reference, owner=owner)
    if not found:
        raise LingpaiError("not_found", f"There is no key `{reference}`. `GET /api/v1/keys` lists yours.")
    if len(found) > 1:
        ids = ", ".join(f"`{key.id}` of {key.user_name}" for key in found[:10])
        raise LingpaiError(
            "invalid_request", f"{len(found)} keys are called `{reference}`. Use the id: {ids}."
        )
    return found[0]
