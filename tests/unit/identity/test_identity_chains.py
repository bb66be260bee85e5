"""Whatever somebody makes, changes or renews, and goes on with: nothing of it can do what they could not do at first.

A chain begins with two keys and goes on at random: each step is taken with any secret that the steps before have given.
With two, rights of one could be handed to the other, which has others of its own.
"""

import ipaddress
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from identity_fakes import NOW

from lingpai.errors import LingpaiError
from lingpai.identity.keyring import Keyring
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import KeyCreate, KeyRotate, KeyUpdate, ProjectCreate, utc_text
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.identity.service import Keys
from lingpai.identity.store import SqlCredentialStore
from lingpai.principal import Principal
from lingpai.storage.database import Database

MODELS: Final = ("acme/x", "acme/y", "other/x")
PATTERNS: Final = (*MODELS, "acme/*", "*")
ADDRESSES: Final = ("10.0.0.1", "10.0.1.1", "2001:db8::1", "192.0.2.1")
NETWORKS: Final = ("10.0.0.0/24", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32", "0.0.0.0/0")
TIMES: Final = (NOW + 3600, NOW + 7200, NOW + 90 * 86_400)

_numbers = count()  # no two keys have the same name, over all chains

subsets = st.lists(st.sampled_from(PATTERNS), max_size=3, unique=True)
rights = st.fixed_dictionaries(
    {},
    optional={
        "scopes": st.lists(
            st.sampled_from(sorted(SCOPES_OF_ROLE["member"])), min_size=1, max_size=4, unique=True
        ),
        "models": subsets,
        "allowed_ips": st.lists(st.sampled_from(NETWORKS), max_size=3, unique=True),
        "expires_at": st.sampled_from(TIMES).map(utc_text),
        "limits": st.sampled_from([["5/day"], ["none"], ["5/day", "1/1s"]]),
    },
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "update", "rotate", "role"]),
        st.integers(0, 20),
        st.integers(0, 20),
        rights,
    ),
    min_size=4,
    max_size=12,
)


def powers(who: Principal) -> set[tuple[Any, ...]]:
    """Everything that a principal can do, one by one: what may be done, with what, from where, when."""
    if who.disabled:
        return set()
    when = [time for time in (NOW, *TIMES) if who.expires_at is None or time < who.expires_at]
    where = [address for address in ADDRESSES if who.may_come_from(address)]
    what = [model for model in MODELS if who.may_call(model)]
    calls = {(time, place, "call", model) for time in when for place in where for model in what}
    return calls | {(time, place, scope) for time in when for place in where for scope in who.scopes}


class Chain:
    """Somebody who begins with some keys, and tries to get further."""

    def __init__(self, services: tuple[Any, ...], keyring: Keyring, tokens: Sequence[str]) -> None:
        self.keys, self.rotation, self.members = services
        self.keyring = keyring
        self.tokens = list(tokens)

    def principals(self) -> list[Principal]:
        loaded = [self.keyring.load(token.encode()) for token in self.tokens]
        return [who for who in loaded if who is not None]

    def take(self, action: str, by: int, target: int, wanted: dict[str, Any]) -> None:
        callers = self.principals()
        caller = callers[by // 2 % len(callers)]
        held = [str(who.key_id) for who in callers]
        seen = [key.id for key in self.keys.list(caller, limit=100)]
        among = held if by % 2 else seen
        key = among[target % len(among)]
        try:
            if action == "create":
                body = {"name": f"made-{next(_numbers)}", "project": "search", **wanted}
                self.tokens.append(self.keys.create(caller, KeyCreate.model_validate(body)).token)
            elif action == "update":
                one_field = dict(
                    list(wanted.items())[:1]
                )  # several at once are mostly refused for one of them
                self.keys.update(caller, key, KeyUpdate.model_validate(one_field))
            elif action == "rotate":
                overlap = ("0s", "1h", "30d")[by % 3]
                self.tokens.append(self.rotation.rotate(caller, key, KeyRotate(overlap=overlap)).token)
            else:
                role = ("viewer", "member", "admin")[by % 3]
                self.members.set_role(caller, "search", "cleo", MemberUpdate(role=role))
        except LingpaiError:
            pass


@pytest.fixture
def services(keys: Keys, rotation: KeyRotation, members: Members) -> tuple[Any, ...]:
    return keys, rotation, members


@pytest.fixture
def keyring(database: Database, peppers: Peppers) -> Keyring:
    return Keyring(SqlCredentialStore(database), peppers)


@pytest.fixture
def admin_of_search(
    services: tuple[Any, ...], projects: Projects, admin: Principal, member: Callable[..., Principal]
) -> Principal:
    """The operator, who has a project with bob and cleo in it, and keys of everybody that can do more."""
    keys, _, members = services
    for name in ("bob", "cleo"):
        member(name)
    projects.create(admin, ProjectCreate(name="search"))
    for name in ("bob", "cleo"):
        members.add(admin, "search", MemberCreate(user=name))
    for owner in ("bob", "cleo", "admin"):
        wide = {"name": f"wide-of-{owner}", "user": owner, "project": "search", "limits": ["none"]}
        wide["scopes"] = sorted(SCOPES_OF_ROLE["member"])
        keys.create(admin, KeyCreate.model_validate(wide))
    unlimited = KeyCreate(
        name="unlimited", user="bob", project="search", scopes=["keys:read"], limits=["none"]
    )
    keys.create(admin, unlimited)
    return admin


@pytest.fixture
def begin(
    services: tuple[Any, ...], keyring: Keyring, admin_of_search: Principal
) -> Callable[[Sequence[dict[str, Any]], str], Chain]:
    keys, _, members = services
    admin = admin_of_search

    def start(first: Sequence[dict[str, Any]], role: str) -> Chain:
        members.set_role(admin, "search", "bob", MemberUpdate.model_validate({"role": role}))
        bodies = [
            {**wanted, "scopes": sorted({"keys:write", "keys:read", *wanted.get("scopes", [])})}
            | {"name": f"first-{next(_numbers)}", "user": "bob", "project": "search"}
            for wanted in first
        ]
        made = [keys.create(admin, KeyCreate.model_validate(body)) for body in bodies]
        return Chain(services, keyring, [each.token for each in made])

    return start


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(rights, min_size=2, max_size=2), role=st.sampled_from(["member", "admin"]), chain=steps)
@example(  # a right of the first, handed to the second, would work from where the first does not
    first=[{"scopes": ["usage:read"], "allowed_ips": ["10.0.0.0/24"]}, {"scopes": ["events:read"]}],
    role="member",
    chain=[("update", 1, 1, {"scopes": ["keys:read", "keys:write", "usage:read"]})],
)
@example(  # a key with limits, which gets hold of one without
    first=[{"limits": ["5/day"]}, {"limits": ["5/day"]}],
    role="member",
    chain=[("rotate", 0, number, {}) for number in range(21)],
)
def test_no_chain_of_steps_leads_to_more_than_the_first_keys_could(
    begin: Callable[[Sequence[dict[str, Any]], str], Chain],
    first: list[dict[str, Any]],
    role: str,
    chain: list[tuple[str, int, int, dict[str, Any]]],
) -> None:
    holder = begin(first, role)
    beginning = holder.principals()
    at_first = set().union(*map(powers, beginning))

    for step in chain:
        holder.take(*step)
        if not holder.principals():  # whoever lost the last secret they had has come to the end
            break
        for who in holder.principals():
            assert powers(who) <= at_first
            assert who.user_name == "bob", "nobody gets a secret of somebody else's key"
            if all(each.key_limits for each in beginning):
                assert who.key_id in {each.key_id for each in beginning}, "every key more multiplies limits"
                assert who.key_limits


def test_powers_tell_rights_apart() -> None:
    """The measure itself: it grows with every right."""
    scopes = frozenset({"keys:read"})
    narrow = Principal(
        "u", "bob", "member", scopes=scopes, models=("acme/x",), expires_at=NOW + 1,
        allowed_ips=(ipaddress.ip_network("10.0.0.0/24"),),
    )  # fmt: skip
    wide = Principal("u", "bob", "member", scopes=SCOPES_OF_ROLE["member"])

    assert powers(narrow) < powers(wide)
    assert powers(narrow)
