"""Clients follow the same rights as keys: the tables of `test_identity_roles`, every role, one's own client and others'.

Whoever has no role in a project gets for it, and for what is in it, what they get for something that does not exist.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import pytest
from test_identity_access import outcome
from test_identity_roles import KEY_TABLE, PROJECT_TABLE, ROLES, letter

from lingpai.identity.interfaces import KeyState
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate, SecretRotation
from lingpai.identity.projects import Projects
from lingpai.identity.roles import KeyAction, ProjectAction, ProjectRole
from lingpai.identity.schemas import ProjectCreate
from lingpai.principal import Principal

Member = Callable[..., Principal]


@dataclass
class World:
    """The project `search` of ada with cleo in it, and bob with a role; `others` is cleo's client and `own` bob's, both in it."""

    clients: Clients
    admin: Principal
    bob: Principal

    def client(self, *, is_own: bool) -> str:
        return "own" if is_own else "others"


MakeWorld = Callable[[ProjectRole | None], World]


@pytest.fixture
def make_world(
    clients: Clients, projects: Projects, members: Members, admin: Principal, member: Member
) -> MakeWorld:
    def make(role: ProjectRole | None) -> World:
        for name in ("ada", "cleo"):
            member(name)
        bob = member("bob")
        projects.create(admin, ProjectCreate(name="search", owner="ada", limits=["100/day"]))
        for name in ("cleo", "bob"):
            members.add(admin, "search", MemberCreate(user=name))
        for name, owner in (("others", "cleo"), ("own", "bob")):
            body = {
                "name": name,
                "user": owner,
                "project": "search",
                "limits": ["5/day"],
                "models": ["a/x"],
                "token_lifetime_s": 600,
            }
            clients.create(admin, ClientCreate.model_validate(body))
        if role is None:
            members.remove(admin, "search", "bob")
        else:
            members.set_role(admin, "search", "bob", MemberUpdate(role=role))
        return World(clients, admin, bob)

    return make


def updated(**fields: Any) -> Callable[[World, Principal, str], object]:
    return lambda world, who, client: world.clients.update(who, client, ClientUpdate(**fields))


CALLS: list[tuple[KeyAction, str, Callable[[World, Principal, str], object]]] = [
    (KeyAction.SEE, "get", lambda world, who, client: world.clients.get(who, client)),
    (KeyAction.SWITCH_OFF, "disable", updated(disabled=True)),
    (KeyAction.SWITCH_OFF, "delete", lambda world, who, client: world.clients.delete(who, client)),
    (KeyAction.NARROW, "name", updated(name="renamed")),
    (KeyAction.NARROW, "limit", updated(limits=["5/day", "1/1s"])),
    (KeyAction.NARROW, "shorter tokens", updated(token_lifetime_s=60)),
    (KeyAction.WIDEN, "models", updated(models=["a/x", "a/y"])),
    (KeyAction.WIDEN, "grants", updated(grants=["client_credentials", "refresh_token"])),
    (KeyAction.WIDEN, "longer tokens", updated(token_lifetime_s=900)),
    (KeyAction.WIDEN, "tokens by the settings", updated(token_lifetime_s=None)),
    (KeyAction.ROTATE, "rotate", lambda world, who, client: world.clients.rotate(who, client, SecretRotation())),
    (KeyAction.SET_LIMITS, "lift limits", updated(limits=["9/day"])),
]  # fmt: skip
ENABLE = updated(disabled=False)


def test_every_action_is_tried() -> None:
    assert {action for action, *_ in CALLS} | {KeyAction.ENABLE} == set(KeyAction)


@pytest.mark.parametrize("role", ROLES)
def test_making_takes_the_role_that_makes_keys(make_world: MakeWorld, role: ProjectRole | None) -> None:
    world = make_world(role)
    expected = "done" if letter(role) in PROJECT_TABLE[ProjectAction.MAKE_KEYS] else "insufficient_scope"

    found = outcome(lambda: world.clients.create(world.bob, ClientCreate(name="new", project="search")))

    assert found == ("not_found" if role is None else expected)


@pytest.mark.parametrize(("call", "role", "is_own"), list(product(CALLS, ROLES, [True, False])))
def test_client(
    make_world: MakeWorld,
    call: tuple[KeyAction, str, Callable[[World, Principal, str], object]],
    role: ProjectRole | None,
    *,
    is_own: bool,
) -> None:
    action, _, act = call
    world = make_world(role)
    expected = "done" if letter(role) in KEY_TABLE[action][0 if is_own else 1] else "insufficient_scope"

    found = outcome(lambda: act(world, world.bob, world.client(is_own=is_own)))

    assert found == ("not_found" if role is None and not is_own else expected)


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
@pytest.mark.parametrize("is_own", [True, False])
def test_only_administrators_enable_what_is_disabled(
    make_world: MakeWorld, role: ProjectRole, *, is_own: bool
) -> None:
    world = make_world(role)
    client = world.client(is_own=is_own)
    world.clients.update(world.admin, client, ClientUpdate(disabled=True))

    assert outcome(lambda: ENABLE(world, world.bob, client)) == "insufficient_scope"
    assert outcome(lambda: ENABLE(world, world.admin, client)) == "done"


@pytest.mark.parametrize("call", CALLS, ids=[f"{action}: {how}" for action, how, _ in CALLS])
def test_administrators_do_everything_with_clients_of_others(
    make_world: MakeWorld, call: tuple[KeyAction, str, Callable[[World, Principal, str], object]]
) -> None:
    world = make_world("member")

    assert outcome(lambda: call[2](world, world.admin, "others")) == "done"


@pytest.mark.parametrize("role", ["viewer", "member", "admin"])
def test_nobody_but_administrators_makes_clients_for_others(make_world: MakeWorld, role: ProjectRole) -> None:
    world = make_world(role)
    body = ClientCreate(name="new", user="cleo", project="search")

    assert outcome(lambda: world.clients.create(world.bob, body)) == "not_found"


def test_no_client_is_made_for_an_owner_whose_role_allows_none(make_world: MakeWorld) -> None:
    world = make_world("viewer")
    body = ClientCreate(name="new", user="bob", project="search")

    assert outcome(lambda: world.clients.create(world.admin, body)) == "invalid_request"


@pytest.mark.parametrize(
    ("role", "seen"), [(None, {"own"}), ("viewer", {"own", "others"}), ("member", {"own", "others"})]
)
def test_list_has_ones_own_and_those_of_ones_projects(
    make_world: MakeWorld, role: ProjectRole | None, seen: set[str]
) -> None:
    world = make_world(role)
    world.clients.create(world.admin, ClientCreate(name="private", user="cleo"))

    assert {client.name for client in world.clients.list(world.bob)} == seen
    assert {client.name for client in world.clients.list(world.admin)} == {"own", "others", "private"}


def test_list_of_a_person_has_what_the_caller_sees_of_theirs(make_world: MakeWorld) -> None:
    world = make_world("viewer")
    world.clients.create(world.admin, ClientCreate(name="private", user="cleo"))

    assert [client.name for client in world.clients.list(world.bob, user="cleo")] == ["others"]
    assert {client.name for client in world.clients.list(world.bob, project="search")} == {"others", "own"}
    assert outcome(lambda: world.clients.list(world.bob, user="admin")) == "not_found"


def test_list_is_narrowed_by_name_text_and_scope_without_wildcards(make_world: MakeWorld) -> None:
    world = make_world("member")
    body = ClientCreate(name="Own_2", user="bob", project="search", scopes=["usage:read"])
    world.clients.create(world.admin, body)

    def found(**filters: Any) -> set[str]:
        return {client.name for client in world.clients.list(world.bob, **filters)}

    assert found(name="own") == {"own"}
    assert found(search="OWN") == {"own", "Own_2"}
    assert found(search="_") == {"Own_2"}
    assert found(search="%") == set()
    assert found(scope="usage:read", search="own_") == {"Own_2"}
    assert found(scope="audit:read") == set()
    assert outcome(lambda: found(scope="usage:raed")) == "invalid_request"


def test_list_of_a_state_agrees_with_what_clients_say_of_themselves(
    make_world: MakeWorld, clock: Callable[[], float]
) -> None:
    """Also when the cause is the owner's role in the project."""
    world = make_world("viewer")
    for name, fields in {"off": {}, "short": {"expires_in": "2h"}}.items():
        world.clients.create(world.admin, ClientCreate(name=name, user="cleo", project="search", **fields))
    world.clients.update(world.admin, "off", ClientUpdate(disabled=True))
    world.clients.clock = lambda: clock() + 3 * 3600

    found = {
        state: {client.name for client in world.clients.list(world.admin, state=state)}
        for state in get_args(KeyState)
    }

    assert found == {"active": {"others"}, "expired": {"short"}, "disabled": {"off", "own"}}
    why = {client.name: client.disabled_because for client in world.clients.list(world.admin)}
    assert {name for name, reason in why.items() if reason} == found["disabled"]


def test_name_means_ones_own_client_first(make_world: MakeWorld) -> None:
    world = make_world("member")
    world.clients.create(world.admin, ClientCreate(name="others", user="bob"))

    assert world.clients.get(world.bob, "others").user_name == "bob"
    assert outcome(lambda: world.clients.get(world.admin, "others")) == "invalid_request"


@pytest.mark.parametrize(
    ("role", "why"),
    [
        (None, "its owner may not have clients in its project"),
        ("viewer", "its owner may not have clients in its project"),
        ("member", None),
    ],
)
def test_client_says_why_it_does_not_work(
    make_world: MakeWorld, role: ProjectRole | None, why: str | None
) -> None:
    world = make_world(role)

    assert world.clients.get(world.bob, "own").disabled_because == why
    assert world.clients.get(world.admin, "others").disabled_because is None
