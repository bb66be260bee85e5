"""Whatever somebody makes, changes or renews, and goes on with: nothing of it can do what they could not do at first.

A chain begins with one key and goes on at random: each step is taken with any secret that the steps before have given.
"""

import ipaddress
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
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
        st.sampled_from(["create", "update", "rotate", "role"]),
        st.integers(0, 20),
        st.integers(0, 20),
        rights,
    ),
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
    """Somebody who begins with one key, and tries to get further."""

    def __init__(self, services: tuple[Any, ...], keyring: Keyring, first: str) -> None:
        self.keys, self.rotation, self.members = services
        self.keyring = keyring
        self.tokens = [first]
        self.made = 0

    def principals(self) -> list[Principal]:
        loaded = [self.keyring.load(token.encode()) for token in self.tokens]
        return [who for who in loaded if who is not None]

    def take(self, action: str, by: int, target: int, wanted: dict[str, Any]) -> None:
        callers = self.principals()
        caller = callers[by % len(callers)]
        seen = self.keys.list(caller, limit=100)
        key = seen[target % len(seen)].id
        try:
            if action == "create":
                self.made += 1
                body = {"name": f"made-{self.made}", "project": "search", **wanted}
                self.tokens.append(self.keys.create(caller, KeyCreate.model_validate(body)).token)
            elif action == "update":
                self.keys.update(caller, key, KeyUpdate.model_validate(wanted))
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
    return admin


@pytest.fixture
def begin(
    services: tuple[Any, ...], keyring: Keyring, admin_of_search: Principal
) -> Callable[[dict[str, Any], str], Chain]:
    keys, _, members = services
    admin = admin_of_search
    numbers = iter(range(10_000))

    def start(wanted: dict[str, Any], role: str) -> Chain:
        members.set_role(admin, "search", "bob", MemberUpdate.model_validate({"role": role}))
        scopes = sorted({"keys:write", "keys:read", *wanted.get("scopes", [])})
        body = {
            **wanted,
            "scopes": scopes,
            "name": f"first-{next(numbers)}",
            "user": "bob",
            "project": "search",
        }
        return Chain(services, keyring, keys.create(admin, KeyCreate.model_validate(body)).token)

    return start


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=rights, role=st.sampled_from(["member", "admin"]), chain=steps)
def test_no_chain_of_steps_leads_to_more_than_the_first_key_could(
    begin: Callable[[dict[str, Any], str], Chain],
    first: dict[str, Any],
    role: str,
    chain: list[tuple[str, int, int, dict[str, Any]]],
) -> None:
    holder = begin(first, role)
    beginning = holder.principals()[0]
    at_first = powers(beginning)

    for step in chain:
        holder.take(*step)
        # Whoever lost the last secret they had has come to the end.
        if not holder.principals():
            break
        for who in holder.principals():
            assert powers(who) <= at_first
            assert who.user_name == "bob", "nobody gets a secret of somebody else's key"
            if beginning.key_limits:
                assert who.key_id == beginning.key_id, "every key more would multiply the limits"
                assert set(who.key_limits) >= set(beginning.key_limits)


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
