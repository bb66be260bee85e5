"""Nobody hands on more than they have."""

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.rights import check_may_grant_models, check_may_grant_scopes, visible_user
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
