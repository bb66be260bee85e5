"""The rules of the members of projects. What a member loses, their keys in the project lose with them, at once."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_person, find_project, standing_in
from lingpai.identity.interfaces import Member, OnChange, Project
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate, MemberView
from lingpai.identity.member_store import Position, SqlMemberStore
from lingpai.identity.project_store import SqlProjectStore
from lingpai.identity.rights import check_may
from lingpai.identity.roles import ProjectAction, ProjectRole
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class Members:
    """Who has which role in which project. All methods block.

    Whoever does not see a project, or its members, does not learn that there are any. Errors are LingpaiError:
    ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told of a project after a role in it changed: the keys in it may work or not from then on."""
        self._database = database
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._store = SqlMemberStore()
        self._projects = SqlProjectStore()

    def list(
        self,
        caller: Principal,
        project: str,
        *,
        search: str | None = None,
        role: ProjectRole | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[Member]:
        """Up to `limit` members of a project, those of longest standing first; only those that fit everything given."""
        with self._database.read() as connection:
            found = find_project(connection, project, caller=caller)
            check_may(standing_in(connection, caller, found.id), ProjectAction.SEE_MEMBERS, found)
            return self._store.page(connection, found.id, search=search, role=role, after=after, limit=limit)

    def add(self, caller: Principal, project: str, body: MemberCreate) -> Member:
        """Take somebody into a project.

        An admin of the project adds whom they know: people who share a project with them. Everybody else is brought in by
        an administrator, because whether somebody has an account here is nobody's business.
        """
        began = time.monotonic()
        with self._database.write() as connection:
            found = self._changeable(connection, caller, project)
            person = find_person(connection, body.user, caller=caller, param="user")
            try:
                self._store.insert(
                    connection, project_id=found.id, user_id=person.id, role=body.role, now=self._clock()
                )
            except IntegrityError as exc:
                raise LingpaiError(
                    "already_exists",
                    f"`{person.name}` has a role in `{found.name}` already. "
                    "Change it: `lingpai projects members set`.",
                    param="user",
                ) from exc
            member = self._member(connection, found, person.id)
            self._record(connection, caller, "member.add", found, before=None, after=member)
        self._on_change("project", found.id, began)
        return member

    def set_role(self, caller: Principal, project: str, user: str, body: MemberUpdate) -> Member:
        """Give a member another role. A project keeps at least one admin who is not disabled."""
        began = time.monotonic()
        with self._database.write() as connection:
            found = self._changeable(connection, caller, project)
            before = self._member(connection, found, user)
            if before.role == "admin" and body.role != "admin":
                self._hand_over(connection, found, before)
            self._store.set_role(connection, before, body.role)
            after = self._member(connection, found, before.user_id)
            self._record(connection, caller, "member.update", found, before=before, after=after)
        self._on_change("project", found.id, began)
        return after

    def remove(self, caller: Principal, project: str, user: str) -> None:
        """End somebody's role, or one's own: their keys in the project are refused from the next call on.

        The keys stay as they are; they work again if their owner comes back.
        """
        began = time.monotonic()
        with self._database.write() as connection:
            found = find_project(connection, project, caller=caller)
            standing = standing_in(connection, caller, found.id)
            member = self._store.find(connection, found.id, user)
            is_leaving = member is not None and member.user_id == caller.user_id
            check_may(standing, ProjectAction.LEAVE if is_leaving else ProjectAction.CHANGE_MEMBERS, found)
            _check_is_shared(found)
            if member is None:
                raise _no_such_member(user, found)
            if member.role == "admin":
                self._hand_over(connection, found, member)
            self._store.remove(connection, member)
            self._record(connection, caller, "member.remove", found, before=member, after=None)
        self._on_change("project", found.id, began)

    def _changeable(self, connection: Connection, caller: Principal, project: str) -> Project:
        found = find_project(connection, project, caller=caller)
        check_may(standing_in(connection, caller, found.id), ProjectAction.CHANGE_MEMBERS, found)
        _check_is_shared(found)
        return found

    def _member(self, connection: Connection, project: Project, reference: str) -> Member:
        member = self._store.find(connection, project.id, reference)
        if member is None:
            raise _no_such_member(reference, project)
        return member

    def _hand_over(self, connection: Connection, project: Project, member: Member) -> None:
        """Before an admin loses that role: there must be another one, who becomes the owner if this one was."""
        successor = self._store.other_admin(connection, member)
        if successor is None:
            raise LingpaiError(
                "invalid_request",
                f"`{member.user_name}` is the last admin of `{project.name}`. Make another one first: "
                "`lingpai projects members set`.",
            )
        if project.owner_id == member.user_id:
            self._projects.update(connection, project.id, {"owner_id": successor})

    def _record(
        self,
        connection: Connection,
        caller: Principal,
        action: str,
        project: Project,
        *,
        before: Member | None,
        after: Member | None,
    ) -> None:
        member = after or before
        self._trail.record(
            connection,
            caller,
            Deed(
                action=action,
                target_kind="member",
                target_id=member.user_id if member else "",
                target_name=member.user_name if member else "",
                project_id=project.id,
                before=_shown(before),
                after=_shown(after),
            ),
        )


def _shown(member: Member | None) -> dict[str, Any] | None:
    return None if member is None else MemberView.of(member).model_dump()


def _check_is_shared(project: Project) -> None:
    if project.is_personal:
        raise LingpaiError(
            "invalid_request",
            f"`{project.name}` is personal: its only member is its user. Make a shared one.",
        )


def _no_such_member(reference: str, project: Project) -> LingpaiError:
    return LingpaiError(
        "not_found",
        f"`{project.name}` has no member `{reference}`. `GET /api/v1/projects/{{id}}/members` lists them.",
    )
