"""The rights model: every role, every action, one's own things and others'. What is not in these tables is not allowed."""

from itertools import pairwise, product

import pytest

from lingpai.identity.roles import (
    PROJECT_ROLES,
    ROLES_WITH_KEYS,
    KeyAction,
    ProjectAction,
    ProjectRole,
    Standing,
)

ROLES: tuple[ProjectRole | None, ...] = (None, *PROJECT_ROLES)

# Written out by hand, and not with the code's own sets: V viewer, M member, A admin of the project, - nobody.
PROJECT_TABLE = {
    ProjectAction.SEE: "VMA",
    ProjectAction.SEE_MEMBERS: "VMA",
    ProjectAction.SEE_KEYS: "VMA",
    ProjectAction.SEE_USAGE: "VMA",
    ProjectAction.LEAVE: "VMA",
    ProjectAction.MAKE_KEYS: "MA",
    ProjectAction.CHANGE: "A",
    ProjectAction.CHANGE_MEMBERS: "A",
    ProjectAction.DELETE: "A",
    ProjectAction.SET_LIMITS: "",
}
# Own key, somebody else's. 0: without a role in the key's project.
KEY_TABLE = {
    KeyAction.SEE: ("0VMA", "VMA"),
    KeyAction.SWITCH_OFF: ("0VMA", "A"),
    KeyAction.NARROW: ("MA", "A"),
    KeyAction.WIDEN: ("MA", ""),
    KeyAction.ROTATE: ("MA", ""),
    KeyAction.SET_LIMITS: ("", ""),
    KeyAction.ENABLE: ("", ""),
}


def letter(role: ProjectRole | None) -> str:
    return "0" if role is None else role[0].upper()


def stranger(role: ProjectRole | None) -> Standing:
    return Standing(is_administrator=False, role=role)


def administrator(role: ProjectRole | None) -> Standing:
    return Standing(is_administrator=True, role=role)


def test_the_tables_have_every_action() -> None:
    assert set(PROJECT_TABLE) == set(ProjectAction)
    assert set(KEY_TABLE) == set(KeyAction)


@pytest.mark.parametrize(("action", "role"), list(product(ProjectAction, ROLES)))
def test_role_allows_in_a_project_what_the_table_says(
    action: ProjectAction, role: ProjectRole | None
) -> None:
    assert stranger(role).may(action) is (letter(role) in PROJECT_TABLE[action])
    assert administrator(role).may(action), "administrators do everything"


@pytest.mark.parametrize(("action", "role", "is_own"), list(product(KeyAction, ROLES, [True, False])))
def test_role_allows_with_a_key_what_the_table_says(
    action: KeyAction, role: ProjectRole | None, *, is_own: bool
) -> None:
    allowed = KEY_TABLE[action][0 if is_own else 1]

    assert stranger(role).may_with_key(action, is_own=is_own) is (letter(role) in allowed)
    assert administrator(role).may_with_key(action, is_own=is_own)


def test_each_role_contains_the_one_before() -> None:
    rights = [{action for action in ProjectAction if stranger(role).may(action)} for role in ROLES]

    assert all(less < more for less, more in pairwise(rights))


def test_keys_work_for_those_who_may_make_them() -> None:
    assert ROLES_WITH_KEYS == ("member", "admin")
