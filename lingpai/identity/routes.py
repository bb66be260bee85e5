"""``/api/v1/keys``, ``/api/v1/projects`` and ``/api/v1/users``."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Response

from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.people import People
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import (
    CreatedKeyView,
    KeyCreate,
    KeyUpdate,
    KeyView,
    ProjectCreate,
    ProjectUpdate,
    ProjectView,
    UserCreate,
    UserUpdate,
    UserView,
)
from lingpai.identity.scopes import Scope
from lingpai.identity.service import Keys, Users
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    decode_cursor,
    encode_cursor,
)

T = TypeVar("T", ApiKey, Project, User)

UserFilter = Annotated[
    str | None, Query(max_length=64, description="Only the keys of this user (name or id).")
]
ProjectFilter = Annotated[
    str | None, Query(max_length=64, description="Only the keys of this project (name or id).")
]
NameFilter = Annotated[str | None, Query(max_length=64, description="Only keys with this name.")]


def key_routes(keys: Keys) -> APIRouter:
    """The routes of API keys. Wherever an id stands, a name that only one visible key has will do."""
    router = APIRouter(prefix="/api/v1/keys", tags=["keys"], responses=ERROR_RESPONSES)

    @router.post("", status_code=201)
    def create_key(
        body: KeyCreate, response: Response, caller: Annotated[Principal, require(Scope.KEYS_WRITE)]
    ) -> CreatedKeyView:
        """Make a key. This answer is the only place where the key itself ever appears."""
        response.headers["cache-control"] = "no-store"
        return CreatedKeyView.of_created(keys.create(caller, body))

    @router.get("")
    def list_keys(
        *,
        caller: Annotated[Principal, require(Scope.KEYS_READ)],
        user: UserFilter = None,
        name: NameFilter = None,
        project: ProjectFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[KeyView]:
        """List keys, oldest first: all for an administrator, their own for everybody else."""
        after = None if cursor is None else decode_cursor(cursor)
        wanted = keys.list(caller, user=user, name=name, project=project, after=after, limit=limit + 1)
        found, next_cursor = _cut(wanted, limit)
        return Page(data=[KeyView.of(key) for key in found], next_cursor=next_cursor)

    @router.get("/{id}")
    def get_key(id: str, caller: Annotated[Principal, require(Scope.KEYS_READ)]) -> KeyView:  # noqa: A002  wire name
        """Show one key."""
        return KeyView.of(keys.get(caller, id))

    @router.patch("/{id}")
    def update_key(
        id: str,  # noqa: A002  the name on the wire
        body: KeyUpdate,
        caller: Annotated[Principal, require(Scope.KEYS_WRITE)],
    ) -> KeyView:
        """Change a key. Takes effect at once, for calls that are already authenticated excepted."""
        return KeyView.of(keys.update(caller, id, body))

    @router.delete("/{id}", status_code=204)
    def delete_key(id: str, caller: Annotated[Principal, require(Scope.KEYS_WRITE)]) -> None:  # noqa: A002  wire name
        """Delete a key for good. Usage reports go on showing its name."""
        keys.delete(caller, id)

    return router


def project_routes(projects: Projects) -> APIRouter:
    """The routes of projects. Wherever an id stands, the name will do."""
    router = APIRouter(prefix="/api/v1/projects", tags=["projects"], responses=ERROR_RESPONSES)

    @router.post("", status_code=201)
    def create_project(
        body: ProjectCreate, caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)]
    ) -> ProjectView:
        """Make a project."""
        return ProjectView.of(projects.create(caller, body))

    @router.get("")
    def list_projects(
        caller: Annotated[Principal, require(Scope.PROJECTS_READ)],
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[ProjectView]:
        """List projects, oldest first: all for an administrator, their own for everybody else."""
        after = None if cursor is None else decode_cursor(cursor)
        found, next_cursor = _cut(projects.list(caller, after=after, limit=limit + 1), limit)
        return Page(data=[ProjectView.of(project) for project in found], next_cursor=next_cursor)

    @router.get("/{id}")
    def get_project(
        id: str,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.PROJECTS_READ)],
    ) -> ProjectView:
        """Show one project."""
        return ProjectView.of(projects.get(caller, id))

    @router.patch("/{id}")
    def update_project(
        id: str,  # noqa: A002  the name on the wire
        body: ProjectUpdate,
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
    ) -> ProjectView:
        """Change a project. Other limits hold from the next call on."""
        return ProjectView.of(projects.update(caller, id, body))

    return router


def user_routes(users: Users, people: People) -> APIRouter:
    """The routes of users. Wherever an id stands, the name will do."""
    router = APIRouter(prefix="/api/v1/users", tags=["users"], responses=ERROR_RESPONSES)

    @router.post("", status_code=201)
    def create_user(body: UserCreate, caller: Annotated[Principal, require(Scope.USERS_WRITE)]) -> UserView:
        """Make a user. Invite them, and they choose their password."""
        password = body.password.get_secret_value() if body.password else None
        hash_ = people.password_changes.hash_for_new_user(caller, body.name, password)
        return UserView.of(users.create(caller, body, password_hash=hash_))

    @router.get("")
    def list_users(
        caller: Annotated[Principal, require(Scope.USERS_READ)],
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[UserView]:
        """List users, oldest first: all for an administrator, themselves for everybody else."""
        after = None if cursor is None else decode_cursor(cursor)
        found, next_cursor = _cut(users.list(caller, after=after, limit=limit + 1), limit)
        return Page(data=[UserView.of(user) for user in found], next_cursor=next_cursor)

    @router.get("/{id}")
    def get_user(id: str, caller: Annotated[Principal, require(Scope.USERS_READ)]) -> UserView:  # noqa: A002  wire name
        """Show one user."""
        return UserView.of(users.get(caller, id))

    @router.patch("/{id}")
    def update_user(
        id: str,  # noqa: A002  the name on the wire
        body: UserUpdate,
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> UserView:
        """Change a user. Disabling one disables all their keys at once, and ends their sessions."""
        return UserView.of(users.update(caller, id, body))

    @router.delete("/{id}", status_code=204)
    def delete_user(
        id: str,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> None:
        """Delete a user for good, with all keys, clients, tokens and sessions. Usage reports go on showing them."""
        people.removal.remove(caller, id)

    return router


def _cut(items: Sequence[T], limit: int) -> tuple[Sequence[T], str | None]:
    """The page of `limit` items, and the cursor of the next one if `items`, asked for one more, shows there is one."""
    if len(items) <= limit:
        return items, None
    last = items[limit - 1]
    return items[:limit], encode_cursor(last.created_at, last.id)
