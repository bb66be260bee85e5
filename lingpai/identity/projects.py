"""The rules of projects: made by administrators, changed by their own admins, seen by all who have a role in them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.deeds import project_changed, project_created
from lingpai.identity.finding import find_person, find_project, find_user, standing_in
from lingpai.identity.interfaces import OnChange, Project, User, ValidateLimit
from lingpai.identity.project_end import ProjectEnd
from lingpai.identity.project_store import SqlProjectStore
from lingpai.identity.rights import already_exists, check_is_admin, check_may
from lingpai.identity.roles import ProjectAction, Standing
from lingpai.identity.schemas import ProjectCreate, ProjectUpdate, ProjectView
from lingpai.identity.store import Position
from lingpai.ids import new_id
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class Projects:
    """Projects. What callers may not see does not exist for them. All methods block.

    Errors are LingpaiError: ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        validate_limit: ValidateLimit,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told of a project after its limits or name changed, or it was deleted."""
        self._database = database
        self._on_change = on_change
        self._validate_limit = validate_limit
        self._trail = trail
        self._clock = clock
        self._store = SqlProjectStore()

    def create(self, caller: Principal, body: ProjectCreate) -> Project:
        """Make a project for the caller or for anybody."""
        check_is_admin(caller, "make projects")
        name = restrictions.checked_name(body.name)
        limits = self._checked(body.limits or ())
        began = time.monotonic()
        with self._database.write() as connection:
            owner = find_user(connection, body.owner or caller.user_id, only=None, param="owner")
            project = Project(
                id=new_id("prj"),
                name=name,
                owner_id=owner.id,
                owner_name=owner.name,
                is_personal=False,
                limits=limits,
                created_at=self._clock(),
                role="admin" if owner.id == caller.user_id else None,
            )
            try:
                self._store.insert(connection, project)
            except IntegrityError as exc:
                raise already_exists("project", name) from exc
            self._trail.record(connection, caller, project_created(project))
        self._on_change("project", project.id, began)
        return project

    def list(
        self,
        caller: Principal,
        *,
        search: str | None = None,
        user: str | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[Project]:
        """Up to `limit` of the projects that `caller` sees, oldest first; only those that fit everything given."""
        with self._database.read() as connection:
            member_id = user and find_person(connection, user, caller=caller, param="user").id
            return self._store.page(
                connection, caller=caller, search=search, member_id=member_id, after=after, limit=limit
            )

    def get(self, caller: Principal, reference: str) -> Project:
        """The project with this id or name."""
        with self._database.read() as connection:
            return find_project(connection, reference, caller=caller)

    def update(self, caller: Principal, reference: str, body: ProjectUpdate) -> Project:
        """Change a project. Other limits hold from the next call on; what was used stays used.

        Its admins rename it and add limits; only administrators lift them, as the limits are the operator's.
        """
        began = time.monotonic()
        with self._database.write() as connection:
            project = find_project(connection, reference, caller=caller)
            values = self._changes(standing_in(connection, caller, project.id), project, body)
            try:
                if values:
                    self._store.update(connection, project.id, values)
            except IntegrityError as exc:
                raise already_exists("project", body.name or "") from exc
            before, project = project, find_project(connection, project.id, caller=caller)
            self._trail.record(connection, caller, project_changed(before, project))
        self._on_change("project", project.id, began)
        return project

    def delete(self, caller: Principal, reference: str, *, force: bool = False) -> None:
        """Delete a project for good; usage goes on showing its name. One that has keys or clients only with `force`.

        With it they are deleted, too, and nothing that came out of them works from then on.
        """
        began, now = time.monotonic(), self._clock()
        with self._database.write() as connection:
            project = find_project(connection, reference, caller=caller)
            check_may(standing_in(connection, caller, project.id), ProjectAction.DELETE, project)
            end = ProjectEnd(connection, project, now=now)
            end.check(force=force)
            key_ids = end.carry_out()
            self._trail.record(connection, caller, _deletion(project))
        for key_id in key_ids:
            self._on_change("key", key_id, began)
        self._on_change("project", project.id, began)

    def _checked(self, limits: Sequence[str]) -> tuple[str, ...]:
        return restrictions.checked_limits(limits, self._validate_limit)

    def _changes(self, standing: Standing, project: Project, body: ProjectUpdate) -> dict[str, Any]:
        check_may(standing, ProjectAction.CHANGE, project)
        values: dict[str, Any] = {}
        if body.name is not None and body.name != project.name:
            if project.is_personal:
                raise LingpaiError(
                    "invalid_request", "A personal project has the name of its user and keeps it.", "name"
                )
            values["name"] = restrictions.checked_name(body.name)
        if body.limits is not None:
            values["limits"] = self._checked(body.limits)
            if not set(project.limits) <= set(values["limits"]):
                check_may(standing, ProjectAction.SET_LIMITS, project)
        return values


def _deletion(project: Project) -> Deed:
    return Deed(
        action="project.delete",
        target_kind="project",
        target_id=project.id,
        target_name=project.name,
        project_id=project.id,
        before=ProjectView.of(project).model_dump(),
    )


def personal_project(
    connection: Connection, user: User, *, trail: Trail, caller: Principal | None = None
) -> Project:
    """The personal project of `user`; made now for one whom a release made that knew no projects."""
    found = SqlProjectStore().personal(connection, user.id)
    return found or make_personal_project(connection, user, trail=trail, caller=caller)


def make_personal_project(
    connection: Connection, user: User, *, trail: Trail, caller: Principal | None
) -> Project:
    """The new personal project of `user`: theirs, named like them, without limits.

    Raises LingpaiError (already_exists) when another project has that name.
    """
    project = Project(
        id=new_id("prj"),
        name=user.name,
        owner_id=user.id,
        owner_name=user.name,
        is_personal=True,
        limits=(),
        created_at=user.created_at,
    )
    try:
        SqlProjectStore().insert(connection, project)
    except IntegrityError as exc:
        raise LingpaiError(
            "already_exists",
            f"There is a project `{user.name}`, and each user has a personal one of the user's name. "
            "Choose another name, or rename that project.",
            "name",
        ) from exc
    trail.record(connection, caller, project_created(project))
    return project
