"""One key, client, user or project by id or name, for whoever may see it, and how a caller stands to it."""

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.member_store import SqlMemberStore
from lingpai.identity.oauth.client_store import SqlClientStore
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.project_store import SqlProjectStore
from lingpai.identity.rights import Credential, no_such_client, no_such_key, no_such_project, no_such_user
from lingpai.identity.roles import ProjectRole, Standing
from lingpai.identity.store import SqlKeyStore, SqlUserStore
from lingpai.principal import Principal


def find_key(connection: Connection, reference: str, *, caller: Principal | None = None) -> ApiKey:
    """The key with this id, or the only one of this name that `caller` sees. Raises LingpaiError."""
    found = SqlKeyStore().find(connection, reference, caller=caller)
    if not found:
        raise no_such_key(reference)
    if len(found) > 1:
        ids = ", ".join(f"`{key.id}` of {key.user_name}" for key in found[:10])
        raise LingpaiError(
            "invalid_request", f"{len(found)} keys are called `{reference}`. Use the id: {ids}."
        )
    return found[0]


def find_client(connection: Connection, reference: str, *, caller: Principal | None = None) -> Client:
    """The client with this id, or the only one of this name that `caller` sees. Raises LingpaiError."""
    found = SqlClientStore().find(connection, reference, caller=caller)
    if not found:
        raise no_such_client(reference)
    if len(found) > 1:
        ids = ", ".join(f"`{client.client_id}` of {client.user_name}" for client in found[:10])
        raise LingpaiError(
            "invalid_request", f"{len(found)} clients are called `{reference}`. Use the id: {ids}."
        )
    return found[0]


def find_user(connection: Connection, reference: str, *, only: str | None, param: str | None = None) -> User:
    """The user with this id or name; with `only` no other than that one. Raises LingpaiError, which names `param`."""
    user = SqlUserStore().find(connection, reference, only=only)
    if user is None:
        raise no_such_user(reference, param=param)
    return user


def find_person(
    connection: Connection, reference: str, *, caller: Principal, param: str | None = None
) -> User:
    """The user with this id or name whom `caller` knows: themselves, and whoever shares a project with them.

    Administrators know everybody. Raises LingpaiError, which names `param`.
    """
    seen_by = None if caller.is_admin else caller.user_id
    user_id = SqlMemberStore().person(connection, reference, seen_by=seen_by)
    if user_id is None:
        raise no_such_user(reference, param=param)
    return find_user(connection, user_id, only=None, param=param)


def find_project(
    connection: Connection, reference: str, *, caller: Principal | None = None, param: str | None = None
) -> Project:
    """The project with this id or name; with `caller` one that they see. Raises LingpaiError, which names `param`."""
    project = SqlProjectStore().find(connection, reference, caller=caller)
    if project is None:
        raise no_such_project(reference, param=param)
    return project


def standing_in(connection: Connection, caller: Principal, project_id: str) -> Standing:
    """How `caller` stands to a project."""
    role = SqlMemberStore().role(connection, project_id, caller.user_id)
    return Standing(is_administrator=caller.is_admin, role=role)


def standing_to(connection: Connection, caller: Principal, key: Credential) -> Standing:
    """How `caller` stands to the project of a key or client. One without a project counts as one of its owner's personal one."""
    if key.project_id:
        return standing_in(connection, caller, key.project_id)
    role: ProjectRole | None = "admin" if key.user_id == caller.user_id else None
    return Standing(is_administrator=caller.is_admin, role=role)
