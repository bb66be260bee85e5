"""Names across domains: what has been deleted keeps its name, and callers see what their role allows."""

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import KeyCreate, UserCreate
from lingpai.identity.service import Keys, Users
from lingpai.names import MOST_SUBJECTS, Names, Subjects
from lingpai.principal import Principal
from lingpai.quotas.grammar import canonical_limit
from lingpai.storage.database import Database, sqlite_url


class World:
    """A database with the administrator in it, and ways to add to it. Its clock goes on by a second per question."""

    def __init__(self, path):
        self.time = 1_795_000_000.0
        self.database = Database(sqlite_url(path))
        self.database.migrate()
        shared = {
            "on_change": lambda kind, id_: None,
            "validate_limit": canonical_limit,
            "default_limits": (),
            "clock": self._tick,
        }
        self.users = Users(self.database, **shared)
        self.keys = Keys(self.database, peppers=Peppers({1: b"p" * 32}), **shared)
        self.users.ensure_admin()
        self.admin = self.users.local_administrator()
        self.names = Names(self.database)
        self.subjects = Subjects(self.keys, self.users)

    def _tick(self):
        self.time += 1
        return self.time

    def user(self, name, **fields) -> str:
        return self.users.create(self.admin, UserCreate(name=name, **fields)).id

    def key(self, name, **fields) -> str:
        return self.keys.create(self.admin, KeyCreate(name=name, **fields)).key.id

    def member(self, name, user_id) -> Principal:
        scopes = frozenset({"limits:read", "keys:read", "users:read"})
        return Principal(user_id, name, "member", key_id="k", scopes=scopes)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "lingpai.db")
    yield world
    world.database.close()


# -- names for ids


def test_keys_and_users_are_named_and_unknown_ids_left_out(world):
    ada, laptop = world.user("ada"), world.key("laptop")

    assert world.names.user_names([ada, "usr_none"]) == {ada: "ada"}
    assert world.names.key_names([laptop, "none"]) == {laptop: "laptop"}
    assert world.names.key_names([]) == {}


def test_deleted_key_keeps_its_name(world):
    laptop = world.key("laptop")

    world.keys.delete(world.admin, laptop)

    assert world.names.key_names([laptop]) == {laptop: "laptop"}
    assert world.names.find_key("laptop", user_id=None) == laptop


def test_more_ids_than_one_statement_takes(world):
    laptop = world.key("laptop")

    assert world.names.key_names([*(f"none-{number}" for number in range(40_000)), laptop]) == {
        laptop: "laptop"
    }


# -- ids for names


def test_key_is_found_by_id_and_by_name(world):
    laptop = world.key("laptop")

    assert world.names.find_key(laptop, user_id=None) == laptop
    assert world.names.find_key("laptop", user_id=None) == laptop
    assert world.names.find_key("none", user_id=None) is None


def test_key_in_use_comes_before_deleted_ones_of_the_same_name(world):
    first = world.key("laptop")
    world.keys.delete(world.admin, first)
    second = world.key("laptop")
    assert world.names.find_key("laptop", user_id=None) == second

    world.keys.delete(world.admin, second)

    assert world.names.find_key("laptop", user_id=None) == second, "of deleted ones, the newest"


def test_key_of_somebody_else_is_not_found(world):
    ada, bob = world.user("ada"), world.user("bob")
    laptop = world.key("laptop", user="ada")

    assert world.names.find_key("laptop", user_id=ada) == laptop
    assert world.names.find_key("laptop", user_id=bob) is None
    assert world.names.find_key(laptop, user_id=bob) is None


def test_user_is_found_by_id_and_by_name(world):
    ada = world.user("ada")

    assert (world.names.find_user(ada), world.names.find_user("ada")) == (ada, ada)
    assert world.names.find_user("none") is None


# -- subjects of limits


def test_subject_is_found_with_its_limits(world):
    world.user("ada", limits=["5/day"])
    laptop = world.key("laptop", user="ada", limits=["10/1s"])

    key, user = (
        world.subjects.find(world.admin, "key", "laptop"),
        world.subjects.find(world.admin, "user", "ada"),
    )

    assert (key.id, key.label, key.limits) == (laptop, "key `laptop`", ("10/1s",))
    assert (user.label, user.limits) == ("user `ada`", ("5/day",))


def test_subject_of_somebody_else_does_not_exist(world):
    bob = world.member("bob", world.user("bob", limits=["5/day"]))
    world.user("ada", limits=["5/day"])
    world.key("laptop", user="ada", limits=["5/day"])

    for kind, name in (("user", "ada"), ("key", "laptop")):
        with pytest.raises(LingpaiError) as caught:
            world.subjects.find(bob, kind, name)
        assert caught.value.code == "not_found"
    assert [subject.name for subject in world.subjects.all(bob)] == ["bob"]


def test_list_holds_users_then_keys_that_have_limits(world):
    world.user("free", limits=["none"])
    world.user("ada", limits=["5/day"])
    world.key("laptop", user="ada", limits=["10/1s"])
    world.key("other", user="ada")

    assert [(subject.kind, subject.name) for subject in world.subjects.all(world.admin)] == [
        ("user", "ada"),
        ("key", "laptop"),
    ]


def test_list_is_bounded(world):
    for number in range(MOST_SUBJECTS + 5):
        world.key(f"key-{number:03}", limits=["5/day"])

    assert len(world.subjects.all(world.admin)) <= MOST_SUBJECTS


@pytest.mark.parametrize("kind", ["key", "user"])
def test_limits_are_replaced_and_none_means_unlimited(world, kind):
    ada = world.user("ada", limits=["5/day"])
    laptop = world.key("laptop", user="ada", limits=["5/day"])
    subject = (kind, laptop if kind == "key" else ada)

    replaced = world.subjects.replace_limits(world.admin, subject, ("7/hour",))
    freed = world.subjects.replace_limits(world.admin, subject, ())

    assert (replaced.limits, freed.limits) == (("7/hour",), ())
    assert world.subjects.find(world.admin, *subject).limits == ()
