"""Whose usage a caller may see: administrators all, everybody else their own and that of the projects they have a role in.

What is another's does not exist (404).
"""

from dataclasses import dataclass

from lingpai.errors import LingpaiError
from lingpai.metering.interfaces import UsageNames, Visible
from lingpai.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """The ids of whom a question is about; None is everybody the caller may see, and `visible` says who that is.

    `visible` is None when nothing is hidden: for administrators, and where the ids leave nothing to hide.
    """

    key_id: str | None
    client_id: str | None
    user_id: str | None
    project_id: str | None
    visible: Visible | None


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
    seen_by = None if caller.is_admin else caller.user_id
    user_id = None if user is None else names.find_user(user, seen_by=seen_by)
    if user is not None and user_id is None:
        raise LingpaiError("not_found", f"There is no user `{user}`. Give the id or the name.", param="user")
    key_id = None if key is None else names.find_key(key, owner=user_id, seen_by=seen_by)
    if key is not None and key_id is None:
        raise LingpaiError(
            "not_found", f"There is no key `{key}`. Give the id or a unique name.", param="key"
        )
    client_id = None if client is None else names.find_client(client, owner=user_id, seen_by=seen_by)
    if client is not None and client_id is None:
        raise LingpaiError(
            "not_found", f"There is no client `{client}`. Give the id or a unique name.", param="client"
        )
    project_id = None if project is None else names.find_project(project, seen_by=seen_by)
    if project is not None and project_id is None:
        raise LingpaiError(
            "not_found", f"There is no project `{project}`. Give the id or the name.", param="project"
        )
    hidden = visible_to(caller, names)
    if hidden is not None and not hidden.project_ids:
        return Subjects(
            key_id=key_id,
            client_id=client_id,
            user_id=caller.user_id,
            project_id=project_id,
            visible=None,
        )
    if hidden is not None and (user_id == hidden.user_id or project_id in hidden.project_ids):
        hidden = None
    return Subjects(
        key_id=key_id, client_id=client_id, user_id=user_id, project_id=project_id, visible=hidden
    )


def visible_to(caller: Principal, names: UsageNames) -> Visible | None:
    """What `caller` may see; None is everything. Blocks."""
    if caller.is_admin:
        return None
    return Visible(caller.user_id, names.shared_projects(caller.user_id))
