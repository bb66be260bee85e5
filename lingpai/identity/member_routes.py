"""``/api/v1/projects/{id}/members``."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from lingpai.identity.list_filters import Search
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate, MemberView
from lingpai.identity.members import Members
from lingpai.identity.roles import ProjectRole
from lingpai.identity.scopes import Scope
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    page_of,
    place_of,
)

ProjectReference = Annotated[str, Path(description="The project's id or name.", examples=["search"])]
UserReference = Annotated[str, Path(description="The member's user id or name.", examples=["bob"])]
RoleFilter = Annotated[ProjectRole | None, Query(description="Only members with this role.")]


def member_routes(members: Members) -> APIRouter:
    """The routes of the members of projects."""
    router = APIRouter(prefix="/api/v1/projects/{id}/members", tags=["projects"], responses=ERROR_RESPONSES)

    @router.get("")
    def list_members(
        *,
        id: ProjectReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.PROJECTS_READ)],
        search: Search = None,
        role: RoleFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[MemberView]:
        """List who has a role in a project, those of longest standing first."""
        found = members.list(caller, id, search=search, role=role, after=place_of(cursor), limit=limit + 1)
        return page_of(found, limit, view=MemberView.of, place=lambda last: (last.created_at, last.user_id))

    @router.post("", status_code=201)
    def add_member(
        id: ProjectReference,  # noqa: A002  the name on the wire
        body: MemberCreate,
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
    ) -> MemberView:
        """Take somebody into a project. Its admins add whom they share a project with, administrators everybody."""
        return MemberView.of(members.add(caller, id, body))

    @router.patch("/{user}")
    def change_member(
        id: ProjectReference,  # noqa: A002  the name on the wire
        user: UserReference,
        body: MemberUpdate,
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
    ) -> MemberView:
        """Give a member another role, from the next call on. A viewer's keys in the project are refused."""
        return MemberView.of(members.set_role(caller, id, user, body))

    @router.delete("/{user}", status_code=204)
    def remove_member(
        id: ProjectReference,  # noqa: A002  the name on the wire
        user: UserReference,
        caller: Annotated[Principal, require(Scope.PROJECTS_WRITE)],
    ) -> None:
        """End somebody's role in a project, or one's own. Their keys in it are refused from the next call on."""
        members.remove(caller, id, user)

    return router
