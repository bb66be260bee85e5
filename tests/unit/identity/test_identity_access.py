"""Every role does every thing through the services: what the tables of `test_identity_roles` allow works, the rest is refused.

Whoever has no role in a project gets for it, and for what is in it, what they get for something that does not exist.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest
from test_identity_roles import KEY_TABLE, PROJECT_TABLE, ROLES, letter

from lingpai.errors import LingpaiError
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.projects import Projects
from lingpai.identity.roles import KeyAction, ProjectAction, ProjectRole
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import KeyCreate, KeyRotate, KeyUpdate, ProjectCreate, ProjectUpdate
from lingpai.identity.service import Keys
from lingpai.principal import Principal

Member = Callable[..., Principal]


@dataclass
class World:
    """The project `search` of ada with cleo in it, and bob with a role; `others` is cleo's key and `own` bob's, both in it."""

    keys: Keys
    projects: Projects
    members: Members
    rotation: KeyRotation
    admin: Principal
    bob: Principal

    def key(self, *, is_own: bool) -> str:
        return "own" if is_own else "others"


@pytest.fixture
def services(keys: Keys, projects: Projects, members: Members, rotation: KeyRotation) -> tuple[object, ...]:
    return keys, projects, members, rotation


@pytest.fixture
def make_world(
    services: tuple[Keys, Projects, Members, KeyRotation], admin: Principal, member: Member
) -> Callable[[ProjectRole | None], World]:
    def make(role: ProjectRole | None) -> World:
        keys, projects, members, _ = services
        for name in ("ada", "cleo"):
            member(name)
        bob = member("bob")
        projects.create(admin, ProjectCreate(name="search", owner="ada", limits=["100/day"]))
        for name in ("cleo", "bob"):
            members.add(admin, "search", MemberCreate(user=name))
        for name, owner in (("others", "cleo"), ("own", "bob")):
            body = {"name": name, "user": owner, "project": "search", "limits": ["5/day"], "models": ["a/x"]}
            keys.create(admin, KeyCreate.model_validate(body))
        if role is None:
            members.remove(admin, "search", "bob")
        else:
            members.set_role(admin, "search", "bob", MemberUpdate(role=role))
        return World(*services, admin, bob)

    return make


def outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except LingpaiError as error:
        return error.code
    return "done"


PROJECT_CALLS: dict[ProjectAction, Callable[[World, Principal], object]] = {
    ProjectAction.SEE: lambda world, who: world.projects.get(who, "search"),
    ProjectAction.SEE_MEMBERS: lambda world, who: world.members.list(who, "search"),
    ProjectAction.SEE_KEYS: lambda world, who: world.keys.list(who, project="search"),
    ProjectAction.MAKE_KEYS: lambda world, who: world.keys.create(
        who, KeyCreate(name="new", project="search")
    ),
    ProjectAction.CHANGE: lambda world, who: world.projects.update(
        who, "search", ProjectUpdate(name="find", limits=["100/day", "5/1s"])
    ),
    ProjectAction.SET_LIMITS: lambda world, who: world.projects.update(
        who, "search", ProjectUpdate(limits=["200/day"])
    ),
    ProjectAction.CHANGE_MEMBERS: lambda world, who: world.members.set_role(
        who, "search", "cleo", MemberUpdate(role="viewer")
    ),
    ProjectAction.LEAVE: lambda world, who: world.members.remove(who, "search", who.user_name),
    ProjectAction.DELETE: lambda world, who: world.projects.delete(who, "search", force=True),
}
KEY_CALLS: dict[KeyAction, Callable[[World, Principal, str], object]] = {
    KeyAction.SEE: lambda world, who, key: world.keys.get(who, key),
    KeyAction.SWITCH_OFF: lambda world, who, key: world.keys.update(who, key, KeyUpdate(disabled=True)),
    KeyAction.NARROW: lambda world, who, key: world.keys.update(who, key, KeyUpdate(name="renamed")),
    KeyAction.WIDEN: lambda world, who, key: world.keys.update(who, key, KeyUpdate(models=["a/x", "a/y"])),
    KeyAction.ROTATE: lambda world, who, key: world.rotation.rotate(who, key, KeyRotate()),
    KeyAction.SET_LIMITS: lambda world, who, key: world.keys.update(who, key, KeyUpdate(limits=["9/day"])),
}


def test_every_action_is_tried() -> None:
    # Usage is another domain's; enabling needs a disabled key and is tried in test_identity_handing_on.
    assert set(PROJECT_CALLS) == set(ProjectAction) - {ProjectAction.SEE_USAGE}
    assert set(KEY_CALLS) == set(KeyAction) - {KeyAction.ENABLE}
    assert set(PROJECT_TABLE) == set(ProjectAction)


@pytest.mark.parametrize(("action", "role"), list(product(PROJECT_CALLS, ROLES)))
def test_project(
    make_world: Callable[[ProjectRole | None], World], action: ProjectAction, role: ProjectRole | None
) -> None:
    world = make_world(role)
    expected = "done" if letter(role) in PROJECT_TABLE[action] else "insufficient_scope"

    found = outcome(lambda: PROJECT_CALLS[action](world, world.bob))

    assert found == ("not_found" if role is None else expected)


@pytest.mark.parametrize(("action", "role", "is_own"), list(product(KEY_CALLS, ROLES, [True, False])))
def test_key(
    make_world: Callable[[ProjectRole | None], World],
    action: KeyAction,
    role: ProjectRole | None,
    *,
    is_own: bool,
) -> None:
    world = make_world(role)
    expected = "done" if letter(role) in KEY_TABLE[action][0 if is_own else 1] else "insufficient_scope"

    found = outcome(lambda: KEY_CALLS[action](world, world.bob, world.key(is_own=is_own)))

    assert found == ("not_found" if role is None and not is_own else expected)


@pytest.mark.parametrize("action", list(PROJECT_CALLS))
def test_administrators_do_everything_in_projects_of_others(
    make_world: Callable[[ProjectRole | None], World], action: ProjectAction
) -> None:
    world = make_world("member")
    if action is ProjectAction.LEAVE:  # what one is not in, one cannot leave
        return

    assert outcome(lambda: PROJECT_CALLS[action](world, world.admin)) == "done"


@pytest.mark.parametrize("action", list(KEY_CALLS))
def test_administrators_do_everything_with_keys_of_others(
    make_world: Callable[[ProjectRole | None], World], action: KeyAction
) -> None:
    world = make_world("member")

    assert outcome(lambda: KEY_CALLS[action](world, world.admin, "others")) == "done"


def test_deleting_a_key_takes_the_same_right_as_disabling_it(
    make_world: Callable[[ProjectRole | None], World],
) -> None:
    world = make_world("member")

    assert outcome(lambda: world.keys.delete(world.bob, "others")) == "insufficient_scope"
    assert outcome(lambda: world.keys.delete(world.bob, "own")) == "done"


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
def test_nobody_but_administrators_makes_keys_for_others(
    make_world: Callable[[ProjectRole | None], World], role: ProjectRole
) -> None:
    """A key acts for its owner everywhere, so who makes it for another gets what the other has elsewhere."""
    world = make_world(role)
    body = KeyCreate(name="new", user="cleo", project="search")

    assert outcome(lambda: world.keys.create(world.bob, body)) == "not_found"
