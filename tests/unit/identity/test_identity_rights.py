"""Nobody hands on more than they have."""

import ipaddress
from dataclasses import replace

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.rights import (
    check_is_not_limited,
    check_may_grant_expiry,
    check_may_grant_models,
    check_may_grant_networks,
    check_may_grant_scopes,
    visible_user,
)
from lingpai.principal import Principal, Role


def caller(
    role: Role = "member", *, scopes: set[str] | None = None, models: tuple[str, ...] = ()
) -> Principal:
    return Principal("usr_1", "bob", role, key_id="k", scopes=frozenset(scopes or ()), models=models)


def owner(role: Role) -> User:
    return User(id="usr_1", name="bob", role=role, limits=(), created_at=0.0)


def test_administrators_see_everybody_and_members_themselves() -> None:
    assert visible_user(caller("admin")) is None
    assert visible_user(caller("member")) == "usr_1"


def test_scopes_one_holds_can_be_handed_on() -> None:
    check_may_grant_scopes(caller(scopes={"keys:read", "usage:read"}), ["usage:read"], owner=owner("member"))


def test_scopes_one_does_not_hold_cannot_even_by_an_administrator() -> None:
    with pytest.raises(LingpaiError) as caught:
        check_may_grant_scopes(caller("admin", scopes={"keys:write"}), ["users:write"], owner=owner("admin"))

    assert (caught.value.code, caught.value.param) == ("insufficient_scope", "scopes")


def test_scopes_for_administrators_cannot_go_to_a_member() -> None:
    with pytest.raises(LingpaiError, match="for administrators only") as caught:
        check_may_grant_scopes(
            caller("admin", scopes={"users:write"}), ["users:write"], owner=owner("member")
        )

    assert (caught.value.code, caught.value.param) == ("invalid_request", "scopes")


@pytest.mark.parametrize(
    ("own", "granted"),
    [
        ((), ()),
        ((), ("a/x", "*")),
        (("a/x",), ("a/x",)),
        (("a/*",), ("a/x", "a/*", "a/b*")),
        (("*",), ("a/x", "*")),
        (("a/*", "b/x"), ("b/x", "a/y")),
    ],
)
def test_models_one_may_call_can_be_handed_on(own: tuple[str, ...], granted: tuple[str, ...]) -> None:
    check_may_grant_models(caller(models=own), granted)


@pytest.mark.parametrize(
    ("own", "granted"),
    [
        (("a/x",), ()),  # no list means all models
        (("a/x",), ("a/y",)),
        (("a/x",), ("a/x", "a/y")),
        (("a/x",), ("a/*",)),
        (("a/*",), ("*",)),
        (("a/*",), ("a*",)),
        (("a/*",), ("b/x",)),
    ],
)
def test_models_beyond_ones_own_cannot(own: tuple[str, ...], granted: tuple[str, ...]) -> None:
    with pytest.raises(LingpaiError) as caught:
        check_may_grant_models(caller("admin", models=own), granted)

    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "models")


@pytest.mark.parametrize(
    ("own", "granted", "allowed"),
    [
        ((), (), True),
        ((), ("0.0.0.0/0", "::/0"), True),
        (("10.0.0.0/8",), ("10.0.0.0/8",), True),
        (("10.0.0.0/8",), ("10.1.0.0/16", "10.0.0.1/32"), True),
        (("10.0.0.0/9", "10.128.0.0/9"), ("10.0.0.0/8",), True),
        (("10.0.0.0/8", "2001:db8::/32"), ("2001:db8:1::/48",), True),
        (("10.0.0.0/8",), (), False),  # no list means anywhere
        (("10.0.0.0/8",), ("10.0.0.0/7",), False),
        (("10.0.0.0/8",), ("10.0.0.1/32", "11.0.0.1/32"), False),
        (("10.0.0.0/8",), ("::/0",), False),
        (("::/0",), ("10.0.0.1/32",), False),
    ],
)
def test_members_hand_on_addresses_within_their_own(
    own: tuple[str, ...], granted: tuple[str, ...], allowed: bool
) -> None:
    bound = replace(caller(), allowed_ips=tuple(map(ipaddress.ip_network, own)))

    check_may_grant_networks(replace(bound, role="admin"), granted)
    if allowed:
        check_may_grant_networks(bound, granted)
    else:
        with pytest.raises(LingpaiError, match="`" + own[0]) as caught:
            check_may_grant_networks(bound, granted)
        assert (caught.value.code, caught.value.param) == ("invalid_request", "allowed_ips")


@pytest.mark.parametrize(
    ("own", "granted", "allowed"),
    [
        (None, None, True),
        (None, 1e9, True),
        (1e9, 1e9, True),
        (1e9, 1e9 - 1, True),
        (1e9, 1e9 + 1, False),
        (1e9, None, False),
    ],
)
def test_no_key_outlives_the_one_it_is_made_with(
    own: float | None, granted: float | None, allowed: bool
) -> None:
    bound = replace(caller(), expires_at=own)

    check_may_grant_expiry(replace(bound, role="admin"), granted)
    if allowed:
        check_may_grant_expiry(bound, granted)
    else:
        with pytest.raises(LingpaiError, match="2001-09-09T01:46:40Z") as caught:
            check_may_grant_expiry(bound, granted, param="expires_in")
        assert (caught.value.code, caught.value.param) == ("invalid_request", "expires_in")


def test_member_s_key_with_limits_of_its_own_is_told_what_to_use_instead() -> None:
    limited = replace(caller(), key_limits=("5/day",))

    check_is_not_limited(caller(), "make keys")
    check_is_not_limited(replace(limited, role="admin"), "make keys")
    with pytest.raises(
        LingpaiError, match=r"cannot make keys\. Use a key without limits of its own"
    ) as caught:
        check_is_not_limited(limited, "make keys")

    assert caught.value.code == "insufficient_scope"
