"""``/api/v1/keys``, ``/api/v1/projects`` and ``/api/v1/users``."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from lingpai.identity.interfaces import UserState
from lingpai.identity.list_filters import NameFilter, ScopeFilter, Search, StateFilter
from lingpai.identity.people import People
from lingpai.identity.projects import Projects
from lingpai.identity.references import KeyReference, ProjectReference, UserReference
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
from lingpai.principal import Principal, Role
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    page_of,
    place_of,
    when_made,
)

UserFilter = Annotated[
    str | None, Query(max_length=64, description="Only the keys of this user (name or id).")
]
ProjectFilter = Annotated[
    str | None, Query(max_length=64, description="Only the keys of this project (name or id).")
]
UserStateFilter = Annotated[UserState | None, Query(description="Only users in this state.")]
RoleFilter = Annotated[Role | None, Query(description="Only users with this role.")]
MemberFilter = Annotated[
    str | None, Query(max_length=64, description="Only projects in which this user (name or id) has a role.")
]
Force = Annotated[
    bool, Query(description="Delete its keys and clients with it. Without it a project that has any is kept.")
]


def key_routes(keys: Keys) -> APIRouter:
    """The routes of API keys. Wherever an id stands, a name that only one visible key has will do."""
    router = APIRouter(prefix="/api/v1/keys", tags=["keys"], responses=ERROR_RESPONSES)

    @router.post("", status_code=201)
    def create_key(
        body: KeyCreate, response: Response, caller: Annotated[Principal, require(Scope.KEYS_WRITE)]
    ) -> CreatedKeyView:
        """Make a key. This answer is the only place where the key itself ever appears."""
        response.headers["cache-control"] = "no-store"
        return CreatedKeyView.of_created(keys.create(caller, body), now=keys.clock())

    @router.get("")
    def list_keys(
        *,
        caller: Annotated[Principal, require(Scope.KEYS_READ)],
        user: UserFilter = None,
        name: NameFilter = None,
        search: Search = None,
        project: ProjectFilter = None,
        scope: ScopeFilter = None,
        state: StateFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[KeyView]:
        """List keys, oldest first: all for an administrator, for everybody else their own and those of their projects."""
        found = keys.list(
            caller,
            user=user,
            name=name,
            search=search,
            project=project,
            scope=scope,
            state=state,
            after=place_of(cursor),
            limit=limit + 1,
        )
        return page_of(found, limit, view=partial(KeyView.of, now=keys.clock()), place=when_made)

    @router.get("/{id}")
    def get_key(id: KeyReference, caller: Annotated[Principal, require(Scope.KEYS_READ)]) -> KeyView:  # noqa: A002  wire name
        """Show one key."""
        return KeyView.of(keys.get(caller, id), now=keys.clock())

    @router.patch("/{id}")
    def update_key(
        id: KeyReference,  # noqa: A002  the name on the wire
        body: KeyUpdate,
        caller: Annotated[Principal, require(Scope.KEYS_WRITE)],
    ) -> KeyView:
        """Change a key. Takes effect at once, for calls that are already authenticated excepted."""
        return KeyView.of(keys.update(caller, id, body), now=keys.clock())

    @router.delete("/{id}", status_code=204)
    def delete_key(id: KeyReference, caller: Annotated[Principal, require(Scope.KEYS_WRITE)]) -> None:  # noqa: A002  wire name
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
        *,
        caller: Annotated[Principal, require(Scope.PROJECTS_READ)],
        search: Search = None,
        user: MemberFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[ProjectView]:
        """List projects, oldest first: all for an administrator, for everybody else those they have a role in."""
        found = projects.list(caller, search=search, user=user, after=place_of(cursor), limit=limit + 1)
        return page_of(found, limit, view=ProjectView.of, place=when_made)

    @router.get("/{id}")
    def get_project(
        id: ProjectReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.PROJECTS_READ)],
    ) -> ProjectView:
        """Show one project."""
        return ProjectView.of(projects.get(caller, id))

    @router.patch("/{id}")
    def update_project(
        id: ProjectReference,  # noqa: A002  the name on the wire
        body: ProjectUpdate,
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
    ) -> ProjectView:
        """Change a project. Its admins rename it and add limits, which hold from the next call on; administrators lift them."""
        return ProjectView.of(projects.update(caller, id, body))

    @router.delete("/{id}", status_code=204)
    def delete_project(
        id: ProjectReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
        force: Force = False,
    ) -> None:
        """Delete a project for good. Usage reports go on showing its name, with the day."""
        projects.delete(caller, id, force=force)

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
        *,
        caller: Annotated[Principal, require(Scope.USERS_READ)],
        search: Search = None,
        state: UserStateFilter = None,
        role: RoleFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[UserView]:
        """List users, oldest first: all for an administrator, themselves for everybody else."""
        found = users.list(
            caller, search=search, state=state, role=role, after=place_of(cursor), limit=limit + 1
        )
        return page_of(found, limit, view=UserView.of, place=when_made)

    @router.get("/{id}")
    def get_user(id: UserReference, caller: Annotated[Principal, require(Scope.USERS_READ)]) -> UserView:  # noqa: A002  wire name
        """Show one user."""
        return UserView.of(users.get(caller, id))

    @router.patch("/{id}")
    def update_user(
        id: UserReference,  # noqa: A002  the name on the wire
        body: UserUpdate,
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> UserView:
        """Change a user. Disabling one disables all their keys at once, and ends their sessions."""
        return UserView.of(users.update(caller, id, body))

    @router.delete("/{id}", status_code=204)
    def delete_user(
        id: UserReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.USERS_WRITE)],
    ) -> None:
        """Delete a user for good, with all keys, clients, tokens and sessions. Usage reports go on showing them."""
        people.removal.remove(caller, id)

    return router
