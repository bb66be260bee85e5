"""Names across domains: what has been deleted keeps its name, and callers see what their role allows."""

import asyncio

import pytest

from lingpai.catalog.interfaces import Model
from lingpai.catalog.service import Catalog
from lingpai.errors import LingpaiError
from lingpai.identity.member_schemas import MemberCreate
from lingpai.identity.members import Members
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.schemas import ClientCreate
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import KeyCreate, ProjectCreate, UserCreate
from lingpai.identity.service import Keys, Users
from lingpai.limit_subjects import ServedModels, Subjects
from lingpai.names import Names, Owners
from lingpai.prices import parse_price
from lingpai.principal import Principal
from lingpai.quotas.book import LimitBook
from lingpai.quotas.grammar import canonical_limit
from lingpai.quotas.store import SqlLimitStore
from lingpai.quotas.subjects import Position, Wanted
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import NoTrail

DEFAULT = ("2000/day@Asia/Shanghai",)


class QuietBackend:
    name = "quiet"


def catalog_of_two_models() -> Catalog:
    backend = QuietBackend()
    shared = {"task": "chat", "backend": backend, "upstream_name": "x"}
    price = parse_price({"input": "0.5", "output": "1", "currency": "CNY"})
    catalog = Catalog()
    catalog.replace(
        backend,
        [
            Model(id="acme/shout", aliases=("shout",), price=price, **shared),
            Model(id="acme/whisper", **shared),
        ],
    )
    return catalog


class World:
    """A database with the administrator in it, and ways to add to it. Its clock goes on by a second per question."""

    def __init__(self, path):
        self.time = 1_795_000_000.0
        self.database = Database(sqlite_url(path))
        self.database.migrate()
        shared = {
            "on_change": lambda *_: None,
            "validate_limit": canonical_limit,
            "clock": self._tick,
            "trail": NoTrail(),
        }
        default = {"default_limits": DEFAULT}
        self.users = Users(self.database, **shared, **default)
        self.keys = Keys(self.database, peppers=Peppers({1: b"p" * 32}), **shared, **default)
        self.clients = Clients(self.database, peppers=Peppers({1: b"p" * 32}), **shared, **default)
        self.projects = Projects(self.database, **shared)
        self.members = Members(self.database, on_change=lambda *_: None, trail=NoTrail(), clock=self._tick)
        self.users.ensure_admin()
        self.admin = self.users.local_administrator()
        self.names = Names(self.database)
        self.models = ServedModels(catalog_of_two_models())
        self.book = LimitBook(SqlLimitStore(self.database, trail=NoTrail()))
        self.book.load()
        self.subjects = Subjects(
            self.database,
            keys=self.keys,
            clients=self.clients,
            users=self.users,
            projects=self.projects,
            book=self.book,
            models=self.models,
        )

    def _tick(self):
        self.time += 1
        return self.time

    def user(self, name, **fields) -> str:
        return self.users.create(self.admin, UserCreate(name=name, **fields)).id

    def key(self, name, **fields) -> str:
        return self.keys.create(self.admin, KeyCreate(name=name, **fields)).key.id

    def client(self, name, **fields) -> str:
        return self.clients.create(self.admin, ClientCreate(name=name, **fields)).client.client_id

    def project(self, name, **fields) -> str:
        return self.projects.create(self.admin, ProjectCreate(name=name, **fields)).id

    def join(self, project, user, role="member") -> None:
        self.members.add(self.admin, project, MemberCreate(user=user, role=role))

    def set(self, subject, *limits) -> None:
        asyncio.run(self.book.replace(subject, limits, caller=self.admin))

    def page(self, caller, **wanted) -> list:
        return self.subjects.page(caller, Wanted(**wanted), after=None, most=1000)

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
    assert world.names.find_key("laptop", owner=None, seen_by=None) == laptop


def test_clients_are_named_and_found_by_the_id_on_the_wire(world):
    ada, nightly = world.user("ada"), world.client("nightly", user="ada")

    assert world.names.client_names([nightly, "cl-lp-none"]) == {nightly: "nightly"}
    assert world.names.find_client(nightly, owner=ada, seen_by=ada) == nightly
    assert world.names.find_client("nightly", owner=None, seen_by=None) == nightly
    assert world.names.find_client(nightly, owner=None, seen_by=world.user("bob")) is None
    assert world.names.find_client(nightly.removeprefix("cl-lp-"), owner=None, seen_by=None) is None


def test_deleted_client_keeps_its_name(world):
    nightly = world.client("nightly")

    world.clients.delete(world.admin, nightly)

    assert world.names.client_names([nightly]) == {nightly: "nightly"}
    assert world.names.find_client("nightly", owner=None, seen_by=None) == nightly


def test_more_ids_than_one_statement_takes(world):
    laptop = world.key("laptop")

    assert world.names.key_names([*(f"none-{number}" for number in range(40_000)), laptop]) == {
        laptop: "laptop"
    }


# -- ids for names


def test_key_is_found_by_id_and_by_name(world):
    laptop = world.key("laptop")

    assert world.names.find_key(laptop, owner=None, seen_by=None) == laptop
    assert world.names.find_key("laptop", owner=None, seen_by=None) == laptop
    assert world.names.find_key("none", owner=None, seen_by=None) is None


def test_key_in_use_comes_before_deleted_ones_of_the_same_name(world):
    first = world.key("laptop")
    world.keys.delete(world.admin, first)
    second = world.key("laptop")
    assert world.names.find_key("laptop", owner=None, seen_by=None) == second

    world.keys.delete(world.admin, second)

    assert world.names.find_key("laptop", owner=None, seen_by=None) == second, "of deleted ones, the newest"


def test_key_of_somebody_else_is_not_found(world):
    ada, bob = world.user("ada"), world.user("bob")
    laptop = world.key("laptop", user="ada")

    assert world.names.find_key("laptop", owner=None, seen_by=ada) == laptop
    assert world.names.find_key("laptop", owner=None, seen_by=bob) is None
    assert world.names.find_key(laptop, owner=None, seen_by=bob) is None


def test_user_is_found_by_id_and_by_name(world):
    ada = world.user("ada")

    assert (world.names.find_user(ada, seen_by=None), world.names.find_user("ada", seen_by=None)) == (
        ada,
        ada,
    )
    assert world.names.find_user("none", seen_by=None) is None


def test_project_is_named_and_found_by_id_and_by_name(world):
    search = world.project("search")

    assert world.names.project_names([search, "prj_none"]) == {search: "search"}
    assert world.names.find_project(search, seen_by=None) == search
    assert world.names.find_project("search", seen_by=None) == search
    assert world.names.find_project("none", seen_by=None) is None


def test_project_is_found_by_who_has_a_role_a_key_or_a_client_in_it(world):
    """A key stays one's own, and what was used with it, when the role has ended."""
    ada, bob, eve, zoe = (world.user(name) for name in ("ada", "bob", "eve", "zoe"))
    search = world.project("search", owner="ada")
    world.join("search", "bob")
    world.key("laptop", user="bob", project="search")
    world.members.remove(world.admin, "search", "bob")
    world.join("search", "zoe")
    world.client("nightly", user="zoe", project="search")
    world.members.remove(world.admin, "search", "zoe")

    found = [world.names.find_project("search", seen_by=user) for user in (ada, bob, zoe, eve)]

    assert found == [search, search, search, None]


def test_what_belongs_to_a_project_is_found_by_all_with_a_role_in_it(world):
    ada, bob, eve = (world.user(name) for name in ("ada", "bob", "eve"))
    search = world.project("search", owner="ada")
    world.join("search", "bob", "viewer")
    key, private = world.key("laptop", user="ada", project="search"), world.key("private", user="ada")
    nightly = world.client("nightly", user="ada", project="search")
    world.client("hourly", user="ada")

    assert world.names.find_client("nightly", owner=None, seen_by=bob) == nightly
    assert world.names.find_client("nightly", owner=bob, seen_by=bob) is None
    assert [world.names.find_client("hourly", owner=None, seen_by=who) for who in (bob, eve)] == [None, None]
    assert world.names.find_key("laptop", owner=None, seen_by=bob) == key
    assert world.names.find_key("private", owner=None, seen_by=bob) is None
    assert world.names.find_user("ada", seen_by=bob) == ada
    assert world.names.find_user(bob, seen_by=ada) == bob
    assert [world.names.find_user(who, seen_by=eve) for who in ("ada", bob, "eve")] == [None, None, eve]
    assert [world.names.shared_projects(who) for who in (ada, bob, eve)] == [(search,), (search,), ()]
    assert private != key


def test_name_of_a_key_means_ones_own_before_a_colleagues(world):
    ada, bob = world.user("ada"), world.user("bob")
    world.project("search", owner="ada")
    world.join("search", "bob")
    adas = world.key("laptop", user="ada", project="search")
    bobs = world.key("laptop", user="bob", project="search")

    found = [world.names.find_key("laptop", owner=None, seen_by=who) for who in (ada, bob)]

    assert found == [adas, bobs]
    assert world.names.find_key("laptop", owner=ada, seen_by=bob) == adas


# -- owners


def test_owners_are_told_of_all_but_models_and_what_is_unknown(world):
    ada, bob = world.user("ada"), world.user("bob")
    laptop, search = world.key("laptop", user="ada"), world.project("search", owner="bob")
    owned = {
        ("client", world.client("nightly", user="ada")): ada,
        ("key", laptop): ada,
        ("user", ada): ada,
        ("user_model", f"{bob} acme/shout"): bob,
    }
    others = [
        ("model", "acme/shout"),
        ("key", search),
        ("project", search),
        *(("key", f"none-{number}") for number in range(1000)),
    ]

    assert Owners(world.database).owners([*others, *owned]) == owned


def test_projects_of_a_user_are_those_they_have_a_role_in_now(world):
    ada, bob = world.user("ada"), world.user("bob")
    search = world.project("search", owner="ada")
    world.join("search", "bob", "viewer")
    owners = Owners(world.database)
    assert {search} < set(owners.projects(bob))
    assert set(owners.projects(ada)) & set(owners.projects(bob)) == {search}

    world.members.remove(world.admin, "search", "bob")

    assert search not in owners.projects(bob)


# -- models


def test_model_is_known_by_id_and_alias_with_the_currency_of_its_price(world):
    assert world.models.named("shout") == ("acme/shout", "CNY")
    assert world.models.named("acme/whisper") == ("acme/whisper", "")
    assert world.models.named("acme/none") is None


def test_nearest_models_are_those_that_may_be_seen(world):
    near = world.models.nearest("acme/shuot", may_see=lambda model: model != "acme/whisper")

    assert near == " Did you mean `acme/shout`?"
    assert world.models.nearest("acme/shuot", may_see=lambda _: False) == ""


# -- subjects of limits


def test_subject_is_found_with_its_limits(world):
    world.user("ada", limits=["5/day"])
    laptop = world.key("laptop", user="ada", limits=["10/1s"])
    search = world.project("search", limits=["8 concurrent"])

    key, user, project = (
        world.subjects.find(world.admin, "key", "laptop"),
        world.subjects.find(world.admin, "user", "ada"),
        world.subjects.find(world.admin, "project", "search"),
    )

    assert (key.id, key.label, key.limits) == (laptop, "key `laptop`", ("10/1s",))
    assert (user.label, user.limits, user.source) == ("user `ada`", ("5/day",), "set")
    assert (project.id, project.label, project.limits) == (search, "project `search`", ("8 concurrent",))


def test_limits_that_are_the_default_say_so(world):
    world.user("ada")

    assert world.subjects.find(world.admin, "user", "ada").source == "default"


def test_limits_say_that_they_are_the_default_of_now(world):
    """The default can change while the server runs: what was given before is set from then on."""
    world.user("ada")

    world.users.set_default_limits(["7/day"])

    world.user("bob")
    found = [world.subjects.find(world.admin, "user", name).source for name in ("ada", "bob")]
    assert found == ["set", "default"]


def test_model_is_found_by_alias_and_may_be_still_to_come(world):
    world.set(("model", "acme/shout"), "5/day")

    known = world.subjects.find(world.admin, "model", "shout")
    unknown = world.subjects.find(world.admin, "model", "acme/later")

    assert (known.id, known.label, known.limits) == ("acme/shout", "model `acme/shout`", ("5/day",))
    assert (unknown.id, unknown.limits) == ("acme/later", ())


def test_user_on_a_model_is_found_by_both_names(world):
    ada = world.user("ada")
    world.set(("user_model", f"{ada} acme/shout"), "5/day")
    world.set(("user_model", "* acme/shout"), "3/day")

    own = world.subjects.find(world.admin, "user_model", "ada shout")
    each = world.subjects.find(world.admin, "user_model", "* shout")

    assert (own.id, own.label) == (f"{ada} acme/shout", "user `ada` on model `acme/shout`")
    assert (own.limits, each.limits) == (("5/day",), ("3/day",))
    assert (each.is_everybody, each.label) == (True, "each user of model `acme/shout`")


def test_client_is_found_with_its_limits_by_name_and_by_the_id_on_the_wire(world):
    nightly = world.client("nightly", limits=["5/day"])

    named, by_id = (world.subjects.find(world.admin, "client", each) for each in ("nightly", nightly))

    assert named == by_id
    assert (named.id, named.label, named.limits) == (nightly, "client `nightly`", ("5/day",))


def test_subject_of_somebody_else_does_not_exist(world):
    bob = world.member("bob", world.user("bob", limits=["5/day"]))
    world.user("ada", limits=["5/day"])
    world.key("laptop", user="ada", limits=["5/day"])
    nightly = world.client("nightly", user="ada", limits=["5/day"])
    world.project("search", owner="ada", limits=["5/day"])
    world.set(("model", "acme/shout"), "5/day")
    bob.models = ("acme/whisper",)

    for kind, name in (
        ("user", "ada"), ("key", "laptop"), ("client", "nightly"), ("client", nightly), ("project", "search"), ("model", "acme/shout"), ("model", "acme/none"),
        ("user_model", "ada acme/whisper"),
    ):  # fmt: skip
        with pytest.raises(LingpaiError) as caught:
            world.subjects.find(bob, kind, name)
        assert caught.value.code == "not_found"
    assert [subject.name for subject in world.page(bob)] == ["bob"]


def test_members_see_what_limits_their_own_calls(world):
    ada, bob = world.user("ada", limits=["none"]), world.user("bob", limits=["none"])
    for subject in (
        ("model", "acme/shout"),
        ("user_model", "* acme/shout"),
        ("user_model", f"{ada} acme/shout"),
        ("user_model", f"{bob} acme/shout"),
    ):
        world.set(subject, "5/day")

    assert [subject.name for subject in world.page(world.member("bob", bob))] == [
        "acme/shout",
        "each user on acme/shout",
        "bob on acme/shout",
    ]


def test_list_holds_those_that_have_limits_kind_by_kind(world):
    world.user("free", limits=["none"])
    ada = world.user("ada", limits=["5/day"])
    world.key("laptop", user="ada", limits=["10/1s"])
    world.key("other", user="ada")
    world.client("nightly", user="ada", limits=["10/1s"])
    world.client("hourly", user="ada")
    world.project("search", limits=["5/day"])
    world.project("free project")
    world.set(("user_model", f"{ada} acme/shout"), "5/day")
    world.set(("model", "acme/shout"), "5/day")
    world.set(("model", "acme/whisper"))

    assert [(subject.kind, subject.name) for subject in world.page(world.admin)] == [
        ("user", "ada"),
        ("key", "laptop"),
        ("client", "nightly"),
        ("project", "search"),
        ("model", "acme/shout"),
        ("user_model", "ada on acme/shout"),
    ]


def test_deleted_keys_and_clients_are_not_listed(world):
    world.keys.delete(world.admin, world.key("laptop", limits=["5/day"]))
    world.clients.delete(world.admin, world.client("nightly", limits=["5/day"]))

    assert world.page(world.admin) == []


def test_pages_of_any_size_hold_everybody_once(world):
    ada = world.user("ada", limits=["5/day"])
    for number in range(5):
        world.key(f"key-{number}", limits=["5/day"])
        world.client(f"client-{number}", limits=["5/day"])
        world.key(f"unlimited-{number}", limits=["none"])
        world.project(f"project-{number}", limits=["5/day"])
        world.set(("model", f"acme/model-{number}"), "5/day")
        world.set(("user_model", f"{ada} acme/model-{number}"), "5/day")
    everybody = world.page(world.admin)

    for size in (1, 2, 3, 7, 21):
        found, after = [], None
        while page := world.subjects.page(world.admin, Wanted(), after=after, most=size):
            found += page
            after = Position(page[-1].kind, page[-1].created_at, page[-1].id)

        assert found == everybody
    assert len(everybody) == 26


def test_more_than_two_hundred_are_all_listed(world):
    for number in range(205):
        world.key(f"key-{number:03}", limits=["5/day"])

    assert len(world.page(world.admin)) == 205


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"key": "laptop"}, ["laptop"]),
        ({"client": "nightly"}, ["nightly"]),
        ({"user": "ada"}, ["ada", "ada on acme/shout", "ada on acme/whisper"]),
        ({"model": "acme/shout"}, ["acme/shout", "each user on acme/shout", "ada on acme/shout", "bob on acme/shout"]),
        ({"user": "ada", "model": "acme/shout"}, ["ada", "acme/shout", "each user on acme/shout", "ada on acme/shout"]),
        ({"project": "search", "key": "laptop"}, ["laptop", "search"]),
    ],
)  # fmt: skip
def test_list_can_be_of_some_only(world, wanted, names):
    ada, bob = world.user("ada", limits=["5/day"]), world.user("bob", limits=["5/day"])
    ids = {
        "ada": ada,
        "laptop": world.key("laptop", limits=["5/day"]),
        "nightly": world.client("nightly", limits=["5/day"]),
        "search": world.project("search", limits=["5/day"]),
    }
    world.key("other", limits=["5/day"])
    world.set(("model", "acme/shout"), "5/day")
    world.set(("model", "acme/whisper"), "5/day")
    for subject in (
        "* acme/shout",
        f"{ada} acme/shout",
        f"{bob} acme/shout",
        f"{ada} acme/whisper",
    ):
        world.set(("user_model", subject), "5/day")

    found = world.page(world.admin, **{kind: ids.get(name, name) for kind, name in wanted.items()})

    assert sorted(subject.name for subject in found) == sorted(names)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"search": "LAP"}, ["laptop"]),
        ({"search": "ada"}, ["ada", "ada on acme/shout"]),
        ({"search": "Shout"}, ["acme/shout", "ada on acme/shout"]),
        ({"search": "%"}, ["100% key"]),
        ({"search": "_"}, []),
        ({"kind": "key"}, ["laptop", "100% key"]),
        ({"kind": "user_model", "search": "acme"}, ["ada on acme/shout"]),
    ],
)
def test_list_is_searched_by_a_part_of_the_name_without_wildcards(world, wanted, names):
    ada = world.user("ada", limits=["5/day"])
    world.key("laptop", limits=["5/day"])
    world.key("100% key", limits=["5/day"])
    world.set(("model", "acme/shout"), "5/day")
    world.set(("user_model", f"{ada} acme/shout"), "5/day")

    assert [subject.name for subject in world.page(world.admin, **wanted)] == names
    one_by_one, after = [], None
    while page := world.subjects.page(world.admin, Wanted(**wanted), after=after, most=1):
        one_by_one += page
        after = Position(page[-1].kind, page[-1].created_at, page[-1].id)
    assert [subject.name for subject in one_by_one] == names


def test_a_call_counts_against_key_user_and_project(world):
    ada = world.user("ada", limits=["5/day"])
    world.user("bob")
    search = world.project("search", owner="bob", limits=["7/day"])
    world.join("search", "ada")
    laptop = world.key("laptop", user="ada", project="search", limits=["10/1s"], models=["acme/*"])

    call = world.subjects.of_key(world.member("ada", ada), "laptop")

    assert [(subject.kind, subject.id, subject.limits) for subject in call.in_order] == [
        ("key", laptop, ("10/1s",)),
        ("user", ada, ("5/day",)),
        ("project", search, ("7/day",)),
    ]
    assert (call.may_call("acme/shout"), call.may_call("other/shout")) == (True, False)


def test_a_clients_own_calls_count_against_client_owner_and_project(world):
    ada = world.user("ada", limits=["5/day"])
    search = world.project("search", limits=["7/day"])
    world.join("search", "ada")
    nightly = world.client("nightly", user="ada", project="search", limits=["10/1s"], models=["acme/*"])

    call = world.subjects.of_client(world.member("ada", ada), "nightly")

    assert [(subject.kind, subject.id, subject.limits) for subject in call.in_order] == [
        ("client", nightly, ("10/1s",)),
        ("user", ada, ("5/day",)),
        ("project", search, ("7/day",)),
    ]
    assert (call.key, call.credential) == (None, "A token of client `nightly`")
    assert (call.may_call("acme/shout"), call.may_call("other/shout")) == (True, False)


def test_a_token_counts_against_its_own_user_whoever_owns_the_client(world):
    """Who signed in through somebody else's client cannot see the client, but what stops their own calls."""
    bob = world.user("bob", limits=["5/day"])
    app = world.client("app", user=world.user("ada"), limits=["3/day"])
    caller = world.member("bob", bob)
    caller.key_id, caller.token_id, caller.client_id, caller.client_name = None, "t", app, "app"

    call = world.subjects.of_own_call(caller)

    assert [(subject.kind, subject.id) for subject in call.in_order] == [("client", app), ("user", bob)]
    with pytest.raises(LingpaiError) as caught:
        world.subjects.of_client(caller, app)
    assert caught.value.code == "not_found"


def test_a_token_without_a_client_counts_against_its_user(world):
    bob = world.user("bob", limits=["5/day"])
    caller = world.member("bob", bob)
    caller.key_id, caller.token_id = None, "t"

    call = world.subjects.of_own_call(caller)

    assert [(subject.kind, subject.id) for subject in call.in_order] == [("user", bob)]
    assert call.credential == "A token of user `bob`"


def test_what_was_deleted_since_the_caller_was_recognised_is_not_there(world):
    caller = world.member("admin", world.admin.user_id)
    caller.key_id = "gone"

    with pytest.raises(LingpaiError) as caught:
        world.subjects.of_own_call(caller)

    assert caught.value.code == "not_found"


def test_calls_of_somebody_elses_key_are_nobodys_business(world):
    world.key("laptop")

    with pytest.raises(LingpaiError) as caught:
        world.subjects.of_key(world.member("bob", world.user("bob")), "laptop")

    assert caught.value.code == "not_found"


def test_a_role_in_a_project_shows_the_limits_of_it_and_of_its_keys(world):
    bob = world.member("bob", world.user("bob", limits=["none"]))
    world.user("ada", limits=["5/day"])
    world.project("search", owner="ada", limits=["7/day"])
    world.join("search", "bob", "viewer")
    world.key("laptop", user="ada", project="search", limits=["5/day"])
    world.key("private", user="ada", limits=["5/day"])

    assert [(subject.kind, subject.name) for subject in world.page(bob)] == [
        ("key", "laptop"),
        ("project", "search"),
    ]
    assert world.subjects.find(bob, "key", "laptop").limits == ("5/day",)
    with pytest.raises(LingpaiError, match="only they and administrators") as caught:
        world.subjects.of_key(bob, "laptop")
    assert caught.value.code == "insufficient_scope", "ada's own limits tell what she uses elsewhere"


@pytest.mark.parametrize("kind", ["key", "client", "user", "project"])
def test_limits_are_replaced_and_none_means_unlimited(world, kind):
    ids = {
        "user": world.user("ada", limits=["5/day"]),
        "key": world.key("laptop", user="ada", limits=["5/day"]),
        "client": world.client("nightly", user="ada", limits=["5/day"]),
        "project": world.project("search", limits=["5/day"]),
    }
    subject = (kind, ids[kind])

    world.subjects.replace_limits(world.admin, subject, ("7/hour",))
    replaced = world.subjects.find(world.admin, *subject)
    world.subjects.replace_limits(world.admin, subject, ())

    assert replaced.limits == ("7/hour",)
    assert world.subjects.find(world.admin, *subject).limits == ()


def test_limits_of_what_is_no_models_id_say_so(world):
    """An alias of a model that was not there yet, or a slip: such limits never hold."""
    world.set(("model", "acme/shout"), "5/day")
    world.set(("model", "shout"), "5/day")
    world.set(("user_model", "* acme/gone"), "5/day")

    names = [subject.name for subject in world.page(world.admin)]

    assert "acme/shout" in names
    assert "shout (no model has this id now)" in names
    assert "each user on acme/gone (no model has this id now)" in names
