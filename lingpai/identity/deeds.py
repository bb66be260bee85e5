"""What the audit trail says of changes to keys, users and projects: as the API shows them, without anything secret."""

from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.schemas import KeyView, ProjectView, UserView
from lingpai.storage.trail import Deed, changed, created, deleted


def key_created(key: ApiKey, now: float) -> Deed:
    """A key was made."""
    after = KeyView.of(key, now=now).model_dump()
    return created("key", key.id, after, name=key.name, project_id=key.project_id)


def key_changed(before: ApiKey, key: ApiKey, now: float) -> Deed:
    """A key was changed, disabled or enabled."""
    views = KeyView.of(before, now=now).model_dump(), KeyView.of(key, now=now).model_dump()
    return changed("key", key.id, *views, name=key.name, project_id=key.project_id)


def key_deleted(key: ApiKey, now: float) -> Deed:
    """A key was deleted."""
    before = KeyView.of(key, now=now).model_dump()
    return deleted("key", key.id, before, name=key.name, project_id=key.project_id)


def user_created(user: User) -> Deed:
    """A user was made."""
    return created("user", user.id, UserView.of(user).model_dump(), name=user.name)


def user_changed(before: User, user: User) -> Deed:
    """A user was changed, disabled or enabled."""
    return changed(
        "user", user.id, UserView.of(before).model_dump(), UserView.of(user).model_dump(), name=user.name
    )


def project_created(project: Project) -> Deed:
    """A project was made."""
    after = ProjectView.of(project).model_dump()
    return created("project", project.id, after, name=project.name, project_id=project.id)


def project_changed(before: Project, project: Project) -> Deed:
    """A project was changed."""
    views = ProjectView.of(before).model_dump(), ProjectView.of(project).model_dump()
    return changed("project", project.id, *views, name=project.name, project_id=project.id)
