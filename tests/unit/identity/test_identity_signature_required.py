"""Keys for signed requests only: what a bound key makes is bound, and only an administrator lifts it."""

from dataclasses import replace

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.schemas import KeyCreate, KeyUpdate


@pytest.fixture
def bob(member):
    return member("bob")


@pytest.fixture
def bound(bob):
    """Bob, with a key for signed requests only."""
    return replace(bob, signature_required=True)


def refusal(action):
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


def make(keys, caller, name="app", **fields):
    return keys.create(caller, KeyCreate(name=name, **fields)).key


@pytest.mark.parametrize(("asked", "made"), [(None, False), (False, False), (True, True)])
def test_a_free_creator_chooses(keys, bob, asked, made):
    assert make(keys, bob, signature_required=asked).signature_required is made


@pytest.mark.parametrize("asked", [None, True])
def test_what_a_bound_creator_makes_is_bound(keys, bound, asked):
    assert make(keys, bound, signature_required=asked).signature_required


def test_a_bound_creator_cannot_make_a_free_key(keys, bound):
    assert refusal(lambda: make(keys, bound, signature_required=False)) == (
        "insufficient_scope",
        "signature_required",
    )


def test_anybody_binds_their_key_and_only_an_administrator_frees_it(keys, bob, admin):
    key = make(keys, bob)

    assert keys.update(bob, key.id, KeyUpdate(signature_required=True)).signature_required
    assert refusal(lambda: keys.update(bob, key.id, KeyUpdate(signature_required=False))) == (
        "insufficient_scope",
        "signature_required",
    )
    assert keys.update(bob, key.id, KeyUpdate(signature_required=True, name="renamed")).signature_required
    assert not keys.update(admin, key.id, KeyUpdate(signature_required=False)).signature_required


def test_a_bound_caller_gives_no_free_key_more_rights(keys, bob, bound):
    key = make(keys, bob, models=["acme/a"])

    assert refusal(lambda: keys.update(bound, key.id, KeyUpdate(models=["acme/a", "acme/b"]))) == (
        "insufficient_scope",
        "signature_required",
    )
    keys.update(bound, key.id, KeyUpdate(models=["acme/a", "acme/b"], signature_required=True))


def test_a_bound_administrator_may_do_what_administrators_may(keys, admin):
    bound = replace(admin, signature_required=True)

    assert not make(keys, bound).signature_required
