"""Keys and users: what is stored, who sees it, who may change it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from identity_fakes import NOW, Changes, Clock

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import Use
from lingpai.identity.schemas import KeyCreate, KeyUpdate, UserCreate, UserUpdate
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.identity.service import Keys, Users
from lingpai.ids import credential_id
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import NoTrail

Member = Callable[..., Principal]
DEFAULT = ("2000/day@Asia/Shanghai",)


def code_of(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


class TestFirstStart:
    def test_first_start_makes_an_administrator_without_limits(self, users: Users, admin: Principal) -> None:
        found = users.get(admin, "admin")

        assert (found.role, found.limits, found.disabled_at) == ("admin", (), None)

    def test_later_starts_make_nobody(self, users: Users, admin: Principal) -> None:
        assert users.ensure_admin() is False
        assert len(users.list(admin)) == 1

    def test_local_administrator_holds_every_scope_and_no_key(self, admin: Principal) -> None:
        assert (admin.user_name, admin.role, admin.key_id, admin.scopes) == (
            "admin",
            "admin",
            None,
            ALL_SCOPES,
        )


class TestMakingKeys:
    def test_key_is_for_calling_models_and_belongs_to_its_maker(self, keys: Keys, admin: Principal) -> None:
        created = keys.create(admin, KeyCreate(name="laptop"))

        key = created.key
        assert credential_id(created.token.encode()) == key.id
        assert (key.name, key.user_name, key.scopes, key.models) == (
            "laptop",
            "admin",
            ("model:inference",),
            (),
        )
        assert (key.created_at, key.expires_at, key.disabled_at, key.last_used_at) == (NOW, None, None, None)
        assert key.hint.endswith(created.token[-4:])

    def test_credential_is_neither_in_the_database_nor_in_a_repr(
        self, keys: Keys, admin: Principal, tmp_path: Path
    ) -> None:
        created = keys.create(admin, KeyCreate(name="laptop"))

        secret = created.token[18:61]
        assert secret not in repr(created)
        assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())

    def test_names_are_unique_per_user_among_keys_that_exist(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        keys.create(admin, KeyCreate(name="laptop"))

        assert code_of(lambda: keys.create(admin, KeyCreate(name="laptop"))) == ("already_exists", "name")
        keys.create(member("bob"), KeyCreate(name="laptop"))
        keys.delete(admin, keys.list(admin, user="admin")[0].id)
        keys.create(admin, KeyCreate(name="laptop"))

    def test_expiry_is_a_time_or_a_lifetime_but_not_both(self, keys: Keys, admin: Principal) -> None:
        both = KeyCreate(name="a", expires_at="2027-01-01", expires_in="90d")

        assert code_of(lambda: keys.create(admin, both)) == ("invalid_request", "expires_in")
        assert keys.create(admin, KeyCreate(name="b", expires_in="1h")).key.expires_at == NOW + 3600
        assert keys.create(admin, KeyCreate(name="c", expires_at="2027-01-01")).key.expires_at == 1798761600.0

    def test_refused_key_is_not_made(self, keys: Keys, admin: Principal, changes: Changes) -> None:
        code_of(lambda: keys.create(admin, KeyCreate(name="a", allowed_ips=["10.0.0.1/8"])))

        assert keys.list(admin) == []
        assert changes == []

    def test_administrator_makes_keys_for_others_by_name_or_id(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")

        assert keys.create(admin, KeyCreate(name="a", user="bob")).key.user_id == bob.user_id
        assert keys.create(admin, KeyCreate(name="b", user=bob.user_id)).key.user_id == bob.user_id

    def test_member_makes_keys_for_nobody_else_and_cannot_tell_who_exists(
        self, keys: Keys, member: Member
    ) -> None:
        bob = member("bob")
        member("eve")

        assert keys.create(bob, KeyCreate(name="a", user="bob")).key.user_id == bob.user_id
        for other in ("eve", "admin", "nobody"):
            assert code_of(partial(keys.create, bob, KeyCreate(name="b", user=other))) == (
                "not_found",
                "user",
            )

    def test_key_with_more_scopes_than_its_maker_is_refused(self, keys: Keys, member: Member) -> None:
        bob = member("bob", scopes=frozenset({"keys:write", "model:inference"}))

        body = KeyCreate(name="a", scopes=["model:inference", "usage:read"])
        assert code_of(lambda: keys.create(bob, body)) == ("insufficient_scope", "scopes")

    def test_key_with_more_models_than_its_maker_is_refused(self, keys: Keys, member: Member) -> None:
        bob = member("bob", models=("acme/*",))

        assert code_of(lambda: keys.create(bob, KeyCreate(name="a", models=["other/x"]))) == (
            "model_not_allowed",
            "models",
        )
        assert keys.create(bob, KeyCreate(name="b", models=["acme/x"])).key.models == ("acme/x",)

    def test_key_gets_the_models_of_its_maker_when_none_are_given(self, keys: Keys, member: Member) -> None:
        bob = member("bob", models=("acme/*",))

        assert keys.create(bob, KeyCreate(name="a")).key.models == ("acme/*",)


class TestLimitsOfKeys:
    def test_key_of_a_user_without_limits_gets_the_default(self, keys: Keys, admin: Principal) -> None:
        assert keys.create(admin, KeyCreate(name="a")).key.limits == DEFAULT
        assert keys.create(admin, KeyCreate(name="b", limits=[])).key.limits == DEFAULT

    def test_key_of_a_user_with_limits_needs_none(self, keys: Keys, users: Users, member: Member) -> None:
        bob = member("bob")

        assert users.get(bob, "bob").limits == DEFAULT
        assert keys.create(bob, KeyCreate(name="a")).key.limits == ()

    def test_given_limits_replace_the_default(self, keys: Keys, admin: Principal) -> None:
        assert keys.create(admin, KeyCreate(name="a", limits=["10 / 1s", "5/day"])).key.limits == (
            "10/1s",
            "5/day",
        )

    def test_none_is_unlimited_and_for_administrators(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        assert keys.create(admin, KeyCreate(name="a", limits=["none"])).key.limits == ()
        assert (
            code_of(lambda: keys.create(member("bob"), KeyCreate(name="b", limits=["none"])))[0]
            == "insufficient_scope"
        )

    def test_member_adds_limits_but_does_not_lift_them(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")
        keys.create(admin, KeyCreate(name="a", user="bob", limits=["5/day"]))

        for lifted in (["10/day"], [], ["none"]):
            assert (
                code_of(partial(keys.update, bob, "a", KeyUpdate(limits=lifted)))[0] == "insufficient_scope"
            )
        assert keys.update(bob, "a", KeyUpdate(limits=["5/day", "1/1s"])).limits == ("5/day", "1/1s")
        assert keys.update(admin, "a", KeyUpdate(limits=["none"])).limits == ()

    def test_wrong_limit_is_refused_with_the_words_of_its_grammar(self, keys: Keys, admin: Principal) -> None:
        with pytest.raises(LingpaiError, match="Write `2000/day@Asia/Shanghai`"):
            keys.create(admin, KeyCreate(name="a", limits=["lots"]))

    def test_wrong_default_stops_the_start(self, database: Database, users: Users) -> None:
        with pytest.raises(LingpaiError, match="no limit"):
            Users(
                database,
                on_change=Changes(),
                validate_limit=_refuse,
                default_limits=("lots",),
                trail=NoTrail(),
            )


def _refuse(text: str) -> str:
    raise ValueError(f"{text} is no limit")


class TestSeeingKeys:
    def test_key_is_found_by_id_and_by_name(self, keys: Keys, admin: Principal) -> None:
        key = keys.create(admin, KeyCreate(name="laptop")).key

        assert keys.get(admin, key.id) == keys.get(admin, "laptop") == key

    def test_id_goes_before_a_name_spelled_like_it(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        key = keys.create(admin, KeyCreate(name="laptop")).key
        keys.create(member("bob"), KeyCreate(name=key.id))

        assert keys.get(admin, key.id) == key

    def test_name_of_several_keys_asks_for_the_id(self, keys: Keys, admin: Principal, member: Member) -> None:
        bob = member("bob")
        own = keys.create(bob, KeyCreate(name="laptop")).key
        keys.create(admin, KeyCreate(name="laptop"))

        with pytest.raises(LingpaiError, match=f"`{own.id}` of bob"):
            keys.get(admin, "laptop")
        assert keys.get(bob, "laptop") == own

    def test_other_peoples_keys_are_like_keys_that_do_not_exist(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        eve = member("eve")
        key = keys.create(member("bob"), KeyCreate(name="laptop")).key

        refusals = [
            code_of(action)
            for reference in (key.id, "laptop", "nothing")
            for action in (
                partial(keys.get, eve, reference),
                partial(keys.update, eve, reference, KeyUpdate(disabled=True)),
                partial(keys.delete, eve, reference),
            )
        ]
        assert set(refusals) == {("not_found", None)}
        assert keys.get(admin, key.id) == key

    def test_lists_show_administrators_all_and_members_their_own(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")
        keys.create(admin, KeyCreate(name="a"))
        keys.create(bob, KeyCreate(name="b"))

        assert {key.name for key in keys.list(admin)} == {"a", "b"}
        assert [key.name for key in keys.list(bob)] == ["b"]
        assert [key.name for key in keys.list(admin, user="bob")] == ["b"]
        assert [key.name for key in keys.list(admin, name="a")] == ["a"]
        assert code_of(lambda: keys.list(bob, user="admin")) == ("not_found", "user")

    def test_pages_go_on_where_the_last_one_ended(self, keys: Keys, admin: Principal, clock: Clock) -> None:
        made = []
        for number in range(5):
            clock.now += number % 2  # some are made at the same instant
            made.append(keys.create(admin, KeyCreate(name=str(number))).key)

        seen = keys.list(admin, limit=2)
        while page := keys.list(admin, after=(seen[-1].created_at, seen[-1].id), limit=2):
            seen += page

        assert sorted(key.name for key in seen) == [key.name for key in made]
        assert [key.created_at for key in seen] == sorted(key.created_at for key in seen)


class TestChangingKeys:
    def test_only_what_is_sent_changes(self, keys: Keys, admin: Principal) -> None:
        before = keys.create(
            admin, KeyCreate(name="a", models=["m/x"], expires_in="1d", allowed_ips=["::1"])
        ).key

        after = keys.update(admin, "a", KeyUpdate(name="b"))

        assert after.name == "b"
        assert (after.models, after.expires_at, after.allowed_ips) == (
            before.models,
            before.expires_at,
            before.allowed_ips,
        )

    def test_everything_can_change(self, keys: Keys, admin: Principal) -> None:
        keys.create(admin, KeyCreate(name="a", expires_in="1d"))

        key = keys.update(
            admin,
            "a",
            KeyUpdate(
                scopes=["keys:read"],
                models=["m/x"],
                limits=["1/1s"],
                allowed_ips=["192.0.2.1"],
                expires_at=None,
                disabled=True,
            ),
        )

        assert (key.scopes, key.models, key.limits) == (("keys:read",), ("m/x",), ("1/1s",))
        assert (key.allowed_ips, key.expires_at, key.disabled_at) == (("192.0.2.1/32",), None, NOW)

    def test_disabling_twice_keeps_the_first_time_and_enabling_clears_it(
        self, keys: Keys, admin: Principal, clock: Clock
    ) -> None:
        keys.create(admin, KeyCreate(name="a"))
        keys.update(admin, "a", KeyUpdate(disabled=True))
        clock.now += 5

        assert keys.update(admin, "a", KeyUpdate(disabled=True)).disabled_at == NOW
        assert keys.update(admin, "a", KeyUpdate(disabled=False)).disabled_at is None

    def test_name_that_is_taken_is_refused(self, keys: Keys, admin: Principal) -> None:
        keys.create(admin, KeyCreate(name="a"))
        keys.create(admin, KeyCreate(name="b"))

        assert code_of(lambda: keys.update(admin, "a", KeyUpdate(name="b"))) == ("already_exists", "name")

    def test_member_cannot_widen_a_key_beyond_their_own(
        self, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob", scopes=frozenset({"keys:write"}), models=("acme/*",))
        keys.create(admin, KeyCreate(name="a", user="bob", scopes=["model:inference", "keys:read"]))

        assert code_of(lambda: keys.update(bob, "a", KeyUpdate(scopes=["usage:read"]))) == (
            "insufficient_scope",
            "scopes",
        )
        assert code_of(lambda: keys.update(bob, "a", KeyUpdate(models=["*"]))) == (
            "model_not_allowed",
            "models",
        )
        assert code_of(lambda: keys.update(bob, "a", KeyUpdate(models=[]))) == ("model_not_allowed", "models")
        assert keys.update(bob, "a", KeyUpdate(scopes=["keys:read"])).scopes == ("keys:read",)

    def test_deleted_key_is_gone_but_for_its_name(self, keys: Keys, admin: Principal) -> None:
        key = keys.create(admin, KeyCreate(name="a")).key

        keys.delete(admin, "a")

        assert code_of(lambda: keys.get(admin, key.id)) == ("not_found", None)
        assert code_of(lambda: keys.delete(admin, key.id)) == ("not_found", None)
        assert keys.list(admin) == []

    def test_every_change_is_reported_after_it_is_stored(
        self, database: Database, keys: Keys, users: Users, admin: Principal, changes: Changes
    ) -> None:
        key = keys.create(admin, KeyCreate(name="a")).key
        keys.update(admin, "a", KeyUpdate(disabled=True))
        keys.delete(admin, "a")
        user = users.create(admin, UserCreate(name="bob"))
        users.update(admin, "bob", UserUpdate(disabled=True))

        assert changes == [("key", key.id)] * 3 + [("user", user.id)] * 2

    def test_change_is_said_to_have_begun_before_anybody_could_read_it(
        self, keys: Keys, users: Users, admin: Principal, changes: Changes, commits: list[float]
    ) -> None:
        """Meters that were loaded since then may lack calls under way."""
        key = keys.create(admin, KeyCreate(name="a")).key
        del commits[:]

        keys.update(admin, key.id, KeyUpdate(limits=["5/day"]))
        users.update(admin, "admin", UserUpdate(limits=["5/day"]))

        assert changes.began[-2] <= commits[0] <= changes.began[-1] <= commits[1]


class TestLastUse:
    def test_last_use_is_noted(self, keys: Keys, admin: Principal) -> None:
        one, other = (keys.create(admin, KeyCreate(name=name)).key for name in "ab")

        keys.touch([Use("key", one.id, 100.0, "192.0.2.1"), Use("key", other.id, 200.0, None)])

        assert (keys.get(admin, "a").last_used_at, keys.get(admin, "a").last_used_ip) == (100.0, "192.0.2.1")
        assert keys.get(admin, "b").last_used_at == 200.0

    def test_earlier_use_does_not_replace_a_later_one(self, keys: Keys, admin: Principal) -> None:
        key = keys.create(admin, KeyCreate(name="a")).key
        keys.touch([Use("key", key.id, 100.0, "192.0.2.1")])

        keys.touch([Use("key", key.id, 99.0, "192.0.2.2"), Use("key", "unknown", 1.0, None)])
        keys.touch([])

        assert keys.get(admin, "a").last_used_ip == "192.0.2.1"


class TestUsers:
    def test_new_user_is_a_member_with_the_default_limits(self, users: Users, admin: Principal) -> None:
        user = users.create(admin, UserCreate(name="bob"))

        assert (user.name, user.role, user.limits, user.created_at) == ("bob", "member", DEFAULT, NOW)
        assert users.get(admin, user.id) == users.get(admin, "bob") == user

    def test_limits_can_be_given_or_lifted(self, users: Users, admin: Principal) -> None:
        assert users.create(admin, UserCreate(name="a", limits=["1 / 1s"])).limits == ("1/1s",)
        assert users.create(admin, UserCreate(name="b", limits=["none"])).limits == ()
        assert users.update(admin, "a", UserUpdate(limits=[])).limits == ()

    def test_names_are_unique(self, users: Users, admin: Principal) -> None:
        assert code_of(lambda: users.create(admin, UserCreate(name="admin"))) == ("already_exists", "name")

    def test_members_see_themselves_and_nobody_else(
        self, users: Users, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")

        assert [user.name for user in users.list(bob)] == ["bob"]
        assert users.get(bob, "bob").id == bob.user_id
        for reference in ("admin", admin.user_id, "nobody"):
            assert code_of(partial(users.get, bob, reference)) == ("not_found", None)

    def test_members_change_nobody_not_even_themselves(self, users: Users, member: Member) -> None:
        bob = member("bob")

        assert code_of(lambda: users.create(bob, UserCreate(name="x")))[0] == "insufficient_scope"
        assert code_of(lambda: users.update(bob, "bob", UserUpdate(role="admin")))[0] == "insufficient_scope"
        assert code_of(lambda: users.update(bob, "admin", UserUpdate(disabled=True)))[0] == "not_found"

    def test_last_administrator_cannot_be_lost(self, users: Users, admin: Principal) -> None:
        assert (
            code_of(lambda: users.update(admin, "admin", UserUpdate(disabled=True)))[0] == "invalid_request"
        )
        assert (
            code_of(lambda: users.update(admin, "admin", UserUpdate(role="member")))[0] == "invalid_request"
        )

        users.create(admin, UserCreate(name="eve", role="admin"))
        assert users.update(admin, "admin", UserUpdate(disabled=True)).disabled_at == NOW
        assert code_of(lambda: users.update(admin, "eve", UserUpdate(disabled=True)))[0] == "invalid_request"
