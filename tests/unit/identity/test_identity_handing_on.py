"""A key never sheds its own restrictions: what a member makes or changes has no more than the key they do it with."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from identity_fakes import NOW

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import ApiKey
from lingpai.identity.schemas import KeyCreate, KeyUpdate, utc_text
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.identity.service import Keys
from lingpai.principal import Principal, Role

OWN_EXPIRY = NOW + 86_400
EARLIER, SAME, LATER = (utc_text(OWN_EXPIRY + seconds) for seconds in (-60, 0, 60))
NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/25", "10.0.0.128/25", "2001:db8::/32")))
RESTRICTIONS: dict[str, dict[str, Any]] = {
    "expiry": {"expires_at": OWN_EXPIRY},
    "networks": {"allowed_ips": NETWORKS},
    "limits": {"key_limits": ("5/day",)},
    "nothing": {},
}
MakeCaller = Callable[[Role, str], Principal]
MakeKey = Callable[..., ApiKey]


@pytest.fixture
def make_caller(admin: Principal, member: Callable[..., Principal]) -> MakeCaller:
    """Makes a caller of a role whose key has one of RESTRICTIONS; both kinds act on bob's keys."""
    bob = member("bob")

    def make(role: Role, restriction: str) -> Principal:
        who = bob if role == "member" else replace(admin, key_id="key-of-admin")
        return replace(who, **RESTRICTIONS[restriction])

    return make


@pytest.fixture
def existing(keys: Keys, admin: Principal, make_caller: MakeCaller) -> MakeKey:
    """Makes a key of bob's as an administrator: without limits unless they are given."""

    def make(**fields: Any) -> ApiKey:
        body = {"name": "old", "user": "bob", "limits": ["none"], "scopes": ["keys:write"], **fields}
        return keys.create(admin, KeyCreate(**body)).key

    return make


def refusal(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


BEYOND = [
    ("expiry", {"expires_at": LATER}, ("invalid_request", "expires_at")),
    ("expiry", {"expires_at": None}, ("invalid_request", "expires_at")),
    ("networks", {"allowed_ips": []}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["10.0.0.1", "192.0.2.1"]}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["0.0.0.0/0"]}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["::/0"]}, ("invalid_request", "allowed_ips")),
    ("limits", {"limits": ["5/day"]}, ("insufficient_scope", "limits")),
    ("limits", {"limits": ["none"]}, ("insufficient_scope", "limits")),
    ("limits", {"scopes": ["keys:write", "model:inference"]}, ("insufficient_scope", None)),
]
NEW_BEYOND = [
    ("expiry", {"expires_at": LATER}, ("invalid_request", "expires_at")),
    ("expiry", {"expires_in": "2d"}, ("invalid_request", "expires_in")),
    ("networks", {"allowed_ips": ["10.0.0.1", "192.0.2.1"]}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["10.0.0.0/23"]}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["::/0"]}, ("invalid_request", "allowed_ips")),
    ("limits", {}, ("insufficient_scope", None)),
    ("limits", {"limits": ["1/day"]}, ("insufficient_scope", None)),
]
WITHIN = [
    ("expiry", {"expires_at": SAME}),
    ("expiry", {"expires_at": EARLIER}),
    ("networks", {"allowed_ips": ["10.0.0.0/24"]}),  # the union of two of the caller's
    ("networks", {"allowed_ips": ["10.0.0.7", "2001:db8:1::/48"]}),
    ("nothing", {"expires_at": LATER, "allowed_ips": ["192.0.2.1"]}),
]


class TestMakingKeys:
    @pytest.mark.parametrize(("restriction", "fields", "refused"), NEW_BEYOND)
    def test_member_makes_no_key_beyond_their_own(
        self, keys: Keys, make_caller: MakeCaller, restriction: str, fields: Any, refused: Any
    ) -> None:
        caller = make_caller("member", restriction)

        assert refusal(lambda: keys.create(caller, KeyCreate(name="new", **fields))) == refused
        assert keys.list(caller) == []

    @pytest.mark.parametrize(("restriction", "fields", "refused"), NEW_BEYOND)
    def test_administrator_does(
        self, keys: Keys, make_caller: MakeCaller, restriction: str, fields: Any, refused: Any
    ) -> None:
        caller = make_caller("admin", restriction)

        assert keys.create(caller, KeyCreate(name="new", user="bob", **fields)).key.user_name == "bob"

    @pytest.mark.parametrize("role", ["member", "admin"])
    @pytest.mark.parametrize(("restriction", "fields"), WITHIN)
    def test_key_within_ones_own_can_be_made(
        self, keys: Keys, make_caller: MakeCaller, role: Role, restriction: str, fields: Any
    ) -> None:
        caller = make_caller(role, restriction)

        assert keys.create(caller, KeyCreate(name="new", **fields)).key.name == "new"

    @pytest.mark.parametrize("fields", [{}, {"allowed_ips": [], "expires_at": None}])
    def test_what_is_left_out_comes_from_the_member_s_key(
        self, keys: Keys, make_caller: MakeCaller, fields: Any
    ) -> None:
        caller = replace(make_caller("member", "expiry"), allowed_ips=NETWORKS)

        key = keys.create(caller, KeyCreate(name="new", **fields)).key

        assert (key.expires_at, key.allowed_ips) == (OWN_EXPIRY, tuple(map(str, NETWORKS)))

    def test_administrator_s_restrictions_are_not_inherited(
        self, keys: Keys, make_caller: MakeCaller
    ) -> None:
        caller = replace(make_caller("admin", "expiry"), allowed_ips=NETWORKS)

        key = keys.create(caller, KeyCreate(name="new")).key

        assert (key.expires_at, key.allowed_ips) == (None, ())


class TestChangingKeys:
    @pytest.mark.parametrize(("restriction", "fields", "refused"), BEYOND)
    def test_member_changes_no_key_beyond_their_own(
        self,
        keys: Keys,
        make_caller: MakeCaller,
        existing: MakeKey,
        *,
        restriction: str,
        fields: Any,
        refused: Any,
    ) -> None:
        before = existing()
        caller = make_caller("member", restriction)

        assert refusal(lambda: keys.update(caller, "old", KeyUpdate(**fields))) == refused
        assert keys.get(caller, "old") == before

    @pytest.mark.parametrize(("restriction", "fields", "refused"), BEYOND)
    def test_administrator_does(
        self,
        keys: Keys,
        make_caller: MakeCaller,
        existing: MakeKey,
        *,
        restriction: str,
        fields: Any,
        refused: Any,
    ) -> None:
        existing()

        assert keys.update(make_caller("admin", restriction), "old", KeyUpdate(**fields)).name == "old"

    @pytest.mark.parametrize("role", ["member", "admin"])
    @pytest.mark.parametrize(("restriction", "fields"), WITHIN)
    def test_key_can_be_narrowed_to_what_is_within_ones_own(
        self,
        keys: Keys,
        make_caller: MakeCaller,
        existing: MakeKey,
        *,
        role: Role,
        restriction: str,
        fields: Any,
    ) -> None:
        existing()

        assert keys.update(make_caller(role, restriction), "old", KeyUpdate(**fields)).name == "old"

    @pytest.mark.parametrize("change", [{"allowed_ips": []}, {"expires_at": None}, {"limits": ["none"]}])
    def test_key_cannot_free_itself(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey, change: Any
    ) -> None:
        own = existing(limits=["5/day"], allowed_ips=[str(network) for network in NETWORKS], expires_at=SAME)
        caller = replace(
            make_caller("member", "limits"), key_id=own.id, allowed_ips=NETWORKS, expires_at=OWN_EXPIRY
        )

        assert refusal(lambda: keys.update(caller, own.id, KeyUpdate(**change)))[1] == next(iter(change))
        assert keys.get(caller, own.id) == own

    @pytest.mark.parametrize("restriction", ["expiry", "networks", "limits"])
    @pytest.mark.parametrize(
        "widening", [{"scopes": ["keys:read", "keys:write"]}, {"models": ["acme/x", "acme/y"]}]
    )
    def test_restricted_key_gives_no_rights_to_one_that_lacks_its_restriction(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey, restriction: str, widening: Any
    ) -> None:
        existing(models=["acme/x"])
        caller = make_caller("member", restriction)

        refused = refusal(lambda: keys.update(caller, "old", KeyUpdate(**widening)))

        assert refused[0] in {"invalid_request", "insufficient_scope"}
        assert keys.update(make_caller("admin", restriction), "old", KeyUpdate(**widening)).name == "old"

    @pytest.mark.parametrize(
        ("widening", "refused"),
        [
            ({"expires_at": LATER}, ("insufficient_scope", "scopes")),
            ({"allowed_ips": []}, ("insufficient_scope", "scopes")),
        ],
    )
    def test_key_with_more_scopes_than_one_s_own_is_not_widened(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey, widening: Any, refused: Any
    ) -> None:
        existing(scopes=["usage:read"], expires_at=SAME, allowed_ips=["10.0.0.1"])
        caller = replace(make_caller("member", "nothing"), scopes=frozenset({"keys:write"}))

        assert refusal(lambda: keys.update(caller, "old", KeyUpdate(**widening))) == refused

    @pytest.mark.parametrize("restriction", RESTRICTIONS)
    def test_what_only_narrows_or_names_is_always_allowed(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey, restriction: str
    ) -> None:
        existing(scopes=["keys:read", "usage:read"])
        body = KeyUpdate(name="new", scopes=["usage:read"], models=["acme/x"], disabled=True)

        changed = keys.update(make_caller("member", restriction), "old", body)

        assert (changed.name, changed.scopes, changed.models) == ("new", ("usage:read",), ("acme/x",))
        assert changed.disabled_at == NOW

    def test_unrestricted_member_widens_up_to_their_own(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey
    ) -> None:
        existing(models=["acme/x"], allowed_ips=["10.0.0.1"], expires_at=SAME)
        scopes = sorted(SCOPES_OF_ROLE["member"])
        body = KeyUpdate(scopes=scopes, models=[], allowed_ips=[], expires_at=None)

        key = keys.update(make_caller("member", "nothing"), "old", body)

        assert (key.scopes, key.models, key.allowed_ips, key.expires_at) == (tuple(scopes), (), (), None)

    def test_only_administrators_enable_a_disabled_key(
        self, keys: Keys, make_caller: MakeCaller, existing: MakeKey
    ) -> None:
        existing()
        bob = make_caller("member", "nothing")
        keys.update(bob, "old", KeyUpdate(disabled=False))  # it is enabled: nothing to ask for
        keys.update(bob, "old", KeyUpdate(disabled=True))

        with pytest.raises(LingpaiError, match=r"Ask an administrator to enable it\.") as caught:
            keys.update(bob, "old", KeyUpdate(disabled=False))

        assert (caught.value.code, caught.value.param) == ("insufficient_scope", "disabled")
        assert keys.get(bob, "old").disabled_at == NOW
        admin = make_caller("admin", "nothing")
        assert keys.update(admin, "old", KeyUpdate(disabled=False)).disabled_at is None
