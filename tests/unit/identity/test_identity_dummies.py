"""What the passwords of unknown users are compared with: nobody's, and as costly as everybody's."""

import pytest

from lingpai.identity.passwords.dummies import Dummies, cost_of
from lingpai.identity.passwords.hashing import HashingPool
from lingpai.identity.peppers import Peppers
from lingpai.identity.settings import IdentitySettings

OLD, NOW = "m=12288,t=3,p=1", "m=19456,t=2,p=1"
NAMES = [f"user{number}" for number in range(2000)]


@pytest.fixture
def dummies(peppers: Peppers) -> Dummies:
    return Dummies(IdentitySettings(), peppers)


def hashes(old: int, now: int) -> list[str]:
    return [f"$argon2id$v=19${OLD}$c2FsdA$dGFn"] * old + [f"$argon2id$v=19${NOW}$c2FsdA$dGFn"] * now


def test_it_has_the_form_and_the_parameters_of_a_real_one(dummies: Dummies) -> None:
    pool = HashingPool(IdentitySettings())
    real = pool.hash(b"quiet harbour lamp").result()

    dummy = dummies.hash_for("nobody")

    assert real.split("$")[:4] == dummy.split("$")[:4]
    assert [len(part) for part in real.split("$")] == [len(part) for part in dummy.split("$")]
    assert pool.is_right(dummy, b"quiet harbour lamp").result() is False
    assert not pool.is_outdated(dummy)
    pool.close()


def test_while_all_hashes_are_new_all_names_get_the_present_parameters(dummies: Dummies) -> None:
    for known in ([], hashes(0, 5)):
        dummies.learn(known)
        assert {cost_of(dummies.hash_for(name)) for name in NAMES} == {NOW}


def test_while_some_hashes_are_old_as_many_names_get_old_parameters(dummies: Dummies) -> None:
    dummies.learn(hashes(3, 7))

    old = sum(cost_of(dummies.hash_for(name)) == OLD for name in NAMES)

    assert 500 < old < 700


def test_a_name_always_gets_the_same_and_after_a_restart_too(dummies: Dummies, peppers: Peppers) -> None:
    again = Dummies(IdentitySettings(), peppers)
    for each in (dummies, again):
        each.learn(hashes(1, 1))

    costs = [cost_of(dummies.hash_for(name)) for name in NAMES]

    assert costs == [cost_of(dummies.hash_for(name)) for name in NAMES]
    assert costs == [cost_of(again.hash_for(name)) for name in NAMES]


def test_names_change_to_new_parameters_only_as_users_do(dummies: Dummies) -> None:
    """A user who signs in gets new ones and keeps them; an unknown name that went back would be told by that."""
    dummies.learn(hashes(8, 2))
    before = {name for name in NAMES if cost_of(dummies.hash_for(name)) == OLD}
    dummies.learn(hashes(2, 8))

    after = {name for name in NAMES if cost_of(dummies.hash_for(name)) == OLD}

    assert after < before


def test_damaged_hashes_teach_nothing(dummies: Dummies) -> None:
    dummies.learn(["", "x", "$2b$12$abc", "$argon2id$", "$argon2i$v=19$m=1,t=1,p=1$a$b"])

    assert cost_of(dummies.hash_for("nobody")) == NOW
