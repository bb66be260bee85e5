"""Whose usage a caller may see: members their own, administrators all. What is another's does not exist (404)."""

from dataclasses import dataclass

from lingpai.errors import LingpaiError
from lingpai.metering.interfaces import UsageNames
from lingpai.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """The ids of whom a question is about; None is everybody the caller may see."""

    key_id: str | None
    client_id: str | None
    user_id: str | None
    project_id: str | None


def visible_subjects(
    caller: Principal,
    names: UsageNames,
    *,
    key: str | None,
    client: str | None,
    user: str | None,
    project: str | None,
) -> Subjects:
    """The ids of the named key, client, user and project. Blocks. Raises LingpaiError (not_found) for what is not there."""
    user_id = _visible_user(caller, user, names)
    owner = None if caller.is_admin else caller.user_id
    return Subjects(
        key_id=_visible_key(key, user_id, names),
        client_id=_visible_client(client, user_id, names),
        user_id=user_id,
        project_id=_visible_project(project, owner, names),
    )


def _visible_user(caller: Principal, user: str | None, names: UsageNames) -> str | None:
    user_id = None if user is None else names.find_user(user)
    if user is not None and (user_id is None or not (caller.is_admin or user_id == caller.user_id)):
        raise LingpaiError("not_found", "There is no such user. Give the id or the name.", param="user")
    return user_id if caller.is_admin else caller.user_id


def _visible_key(key: str | None, user_id: str | None, names: UsageNames) -> str | None:
    key_id = None if key is None else names.find_key(key, user_id=user_id)
    if key is not None and key_id is None:
        raise LingpaiError("not_found", "There is no such key. Give the id or a unique name.", param="key")
    return key_id


def _visible_client(client: str | None, user_id: str | None, names: UsageNames) -> str | None:
    client_id = None if client is None else names.find_client(client, user_id=user_id)
    if client is not None and client_id is None:
        raise LingpaiError(
            "not_found", "There is no such client. Give the id or a unique name.", param="client"
        )
    return client_id


def _visible_project(project: str | None, user_id: str | None, names: UsageNames) -> str | None:
    project_id = None if project is None else names.find_project(project, user_id=user_id)
    if project is not None and project_id is None:
        raise LingpaiError("not_found", "There is no such project. Give the id or the name.", param="project")
    return project_id
