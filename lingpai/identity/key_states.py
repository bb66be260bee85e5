"""Which keys or clients a list shows, and in which state one is: in SQL, and of a row that was read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, String, Table, and_, cast, func, not_, or_

from lingpai.identity.interfaces import KeyState
from lingpai.identity.roles import ROLES_WITH_KEYS
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.identity.tables import api_keys, project_members, users


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys or clients a list shows; None does not restrict. `search` is a part of the name, `now` is in Unix seconds."""

    name: str | None = None
    search: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    scope: str | None = None
    state: KeyState | None = None
    now: float = 0.0


def disabled_because(row: Row[Any], nouns: str = "keys") -> str | None:
    """Why the key or client of a row does not work; None when it does, or has merely expired. `nouns`: keys, clients."""
    if row.disabled_at is not None:
        return row.disabled_because or "disabled"
    return _owner_disables(row, nouns)


def _owner_disables(row: Row[Any], nouns: str) -> str | None:
    """Why the owner of a key or client is the cause that it does not work; None when they are not."""
    if row.user_disabled_at is not None:
        return "its owner is disabled"
    if row.project_id is not None and row.role != "admin" and row.project_role not in ROLES_WITH_KEYS:
        return f"its owner may not have {nouns} in its project"
    return None


def conditions_of(wanted: KeyFilter, table: Table = api_keys) -> Iterator[ColumnElement[bool]]:
    """Conditions for what selects from `table` (keys or clients), joined with `users` and `project_members` of the owner."""
    columns = table.c
    if wanted.name is not None:
        yield columns.name == wanted.name
    if wanted.search is not None:
        yield columns.name.icontains(wanted.search, autoescape=True)
    if wanted.user_id is not None:
        yield columns.user_id == wanted.user_id
    if wanted.project_id is not None:
        yield columns.project_id == wanted.project_id
    if wanted.scope is not None:
        yield cast(columns.scopes, String).contains(f'"{wanted.scope}"', autoescape=True)
        yield users.c.role.in_([role for role, held in SCOPES_OF_ROLE.items() if wanted.scope in held])
    if wanted.state is not None:
        yield _is_in_state(wanted.state, wanted.now, table)


def _is_in_state(state: KeyState, now: float, table: Table) -> ColumnElement[bool]:
    is_off = _is_off(table)
    if state == "disabled":
        return is_off
    expires_at = table.c.expires_at
    has_expired = and_(expires_at.is_not(None), expires_at <= now)
    return and_(not_(is_off), has_expired if state == "expired" else not_(has_expired))


def _is_off(table: Table) -> ColumnElement[bool]:
    """When one does not work although nobody has disabled it, or because somebody has; `disabled_because` says it of a row."""
    is_role_missing = and_(
        table.c.project_id.is_not(None),
        users.c.role != "admin",
        func.coalesce(project_members.c.role, "none").not_in(ROLES_WITH_KEYS),
    )
    return or_(table.c.disabled_at.is_not(None), users.c.disabled_at.is_not(None), is_role_missing)
