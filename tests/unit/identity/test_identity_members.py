"""Members of projects: who comes, who goes, and what goes with them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from identity_fakes import NOW, Changes, Clock, KeptTrail

from lingpai.errors import LingpaiError
from lingpai.identity.keyring import Keyring
from lingpai.identity.member_schemas import MemberCreate, MemberUpdate
from lingpai.identity.members import Members
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import KeyCreate, ProjectCreate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.principal import Principal
from lingpai.storage.database import Database

Member = Callable[..., Principal]


def code_of(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


def roles(members: Members, caller: Principal, project: str = "search") -> dict[str, str]:
    return {member.user_name: member.role for member in members.list(caller, project)}


@pytest.fixture
def search(projects: Projects, admin: Principal, member: Member) -> Principal:
    """The project `search`, and ada, whose it is."""
    ada = member("ada")
    projects.create(admin, ProjectCreate(name="search", owner="ada"))
    return ada


class TestComing:
    def test_creator_of_a_project_is_its_admin(self, members: Members, search: Principal) -> None:
        assert roles(members, search) == {"ada": "admin"}
        assert members.list(search, "search")[0].created_at == NOW

    def test_owner_is_the_admin_of_a_personal_project(self, members: Members, search: Principal) -> None:
        assert roles(members, search, "ada") == {"ada": "admin"}

    def test_administrator_brings_anybody_in(
        self, members: Members, search: Principal, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")

        added = members.add(admin, "search", MemberCreate(user="bob", role="viewer"))

        assert (added.user_id, added.role) == (bob.user_id, "viewer")
        assert roles(members, search) == roles(members, bob) == {"ada": "admin", "bob": "viewer"}

    def test_admin_of_a_project_adds_whom_they_share_one_with(
        self, members: Members, search: Principal, projects: Projects, admin: Principal, member: Member
    ) -> None:
        """Whether anybody else has an account is nobody's business: same answer as for a name that nobody has."""
        member("bob")
        member("eve")
        projects.create(admin, ProjectCreate(name="other", owner="ada"))
        members.add(admin, "other", MemberCreate(user="bob"))

        members.add(search, "search", MemberCreate(user="bob"))

        assert roles(members, search) == {"ada": "admin", "bob": "member"}
        for stranger in ("eve", "nobody"):
            add = partial(members.add, search, "search", MemberCreate(user=stranger))
            assert code_of(add) == ("not_found", "user")

    def test_nobody_has_two_roles(self, members: Members, search: Principal) -> None:
        add = partial(members.add, search, "search", MemberCreate(user="ada", role="viewer"))

        assert code_of(add) == ("already_exists", "user")
        assert roles(members, search) == {"ada": "admin"}

    def test_personal_project_has_exactly_its_owner(
        self, members: Members, search: Principal, admin: Principal, member: Member
    ) -> None:
        member("bob")

        for action in (
            partial(members.add, admin, "ada", MemberCreate(user="bob")),
            partial(members.set_role, admin, "ada", "ada", MemberUpdate(role="viewer")),
            partial(members.remove, admin, "ada", "ada"),
            partial(members.remove, search, "ada", "ada"),
        ):
            assert code_of(action)[0] == "invalid_request"
        assert roles(members, search, "ada") == {"ada": "admin"}


class TestGoing:
    @pytest.fixture
    def bob(self, members: Members, search: Principal, admin: Principal, member: Member) -> Principal:
        bob = member("bob")
        members.add(admin, "search", MemberCreate(user="bob"))
        return bob

    @pytest.fixture
    def keyring(self, database: Database, peppers: Peppers) -> Keyring:
        return Keyring(SqlCredentialStore(database), peppers)

    def test_keys_in_the_project_are_refused_and_work_again_for_who_comes_back(
        self, members: Members, keys: Keys, keyring: Keyring, bob: Principal, *, admin: Principal
    ) -> None:
        inside = keys.create(bob, KeyCreate(name="inside", project="search"))
        outside = keys.create(bob, KeyCreate(name="outside"))

        def is_refused(token: str) -> bool:
            found = keyring.load(token.encode())
            return found is not None and found.disabled

        assert [is_refused(made.token) for made in (inside, outside)] == [False, False]
        members.remove(admin, "search", "bob")
        assert [is_refused(made.token) for made in (inside, outside)] == [True, False]
        assert keys.get(bob, "inside").disabled_because == "its owner may not have keys in its project"
        assert keys.get(bob, "inside").disabled_at is None
        members.add(admin, "search", MemberCreate(user="bob", role="viewer"))
        assert is_refused(inside.token), "viewers have no keys"
        members.set_role(admin, "search", "bob", MemberUpdate(role="member"))
        assert not is_refused(inside.token)

    def test_keyring_hears_of_every_change_of_a_role(
        self, members: Members, bob: Principal, admin: Principal, changes: Changes, commits: list[float]
    ) -> None:
        project = members.list(admin, "search")[0].project_id
        del changes[:]

        members.set_role(admin, "search", "bob", MemberUpdate(role="viewer"))
        members.remove(admin, "search", "bob")
        members.add(admin, "search", MemberCreate(user="bob"))

        assert changes == [("project", project)] * 3
        assert changes.began[-1] <= commits[-1]

    def test_keys_of_administrators_need_no_role(
        self, members: Members, keys: Keys, keyring: Keyring, search: Principal, *, admin: Principal
    ) -> None:
        made = keys.create(admin, KeyCreate(name="of the operator", project="search"))

        found = keyring.load(made.token.encode())

        assert found is not None
        assert not found.disabled
        assert roles(members, search) == {"ada": "admin"}

    def test_what_the_role_gave_is_gone_at_once(
        self, members: Members, projects: Projects, keys: Keys, bob: Principal, *, search: Principal
    ) -> None:
        adas = keys.create(search, KeyCreate(name="adas", project="search")).key
        assert keys.get(bob, adas.id) == adas

        members.remove(search, "search", "bob")

        assert code_of(partial(keys.get, bob, adas.id))[0] == "not_found"
        assert code_of(partial(projects.get, bob, "search"))[0] == "not_found"
        assert code_of(partial(members.list, bob, "search"))[0] == "not_found"
        assert [project.name for project in projects.list(bob)] == ["bob"]

    def test_everybody_can_leave_but_the_last_admin(
        self, members: Members, bob: Principal, search: Principal
    ) -> None:
        members.remove(bob, "search", "bob")

        assert code_of(partial(members.remove, search, "search", "ada"))[0] == "invalid_request"
        step_down = partial(members.set_role, search, "search", "ada", MemberUpdate(role="member"))
        assert code_of(step_down)[0] == "invalid_request"
        assert roles(members, search) == {"ada": "admin"}

    def test_a_disabled_admin_does_not_count_as_one_who_stays(
        self, members: Members, users: Users, bob: Principal, search: Principal, *, admin: Principal
    ) -> None:
        members.set_role(search, "search", "bob", MemberUpdate(role="admin"))
        users.update(admin, "bob", UserUpdate(disabled=True))

        assert code_of(partial(members.remove, search, "search", "ada"))[0] == "invalid_request"

    def test_owner_who_leaves_is_followed_by_the_admin_of_longest_standing(
        self, members: Members, projects: Projects, bob: Principal, search: Principal, clock: Clock
    ) -> None:
        members.set_role(search, "search", "bob", MemberUpdate(role="admin"))

        members.remove(search, "search", "ada")

        assert projects.get(bob, "search").owner_name == "bob"
        assert roles(members, bob) == {"bob": "admin"}

    def test_admins_who_leave_at_the_same_time_do_not_leave_the_project_alone(
        self, members: Members, search: Principal, admin: Principal, member: Member
    ) -> None:
        leaving = [search]
        for number in range(7):
            leaving.append(member(f"admin-{number}"))
            members.add(admin, "search", MemberCreate(user=f"admin-{number}", role="admin"))

        def leave(who: Principal) -> str:
            try:
                members.remove(who, "search", who.user_name)
            except LingpaiError as error:
                return error.code
            return "left"

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(leave, leaving))

        assert sorted(outcomes) == ["invalid_request", *["left"] * 7]
        assert list(roles(members, admin).values()) == ["admin"]

    def test_unknown_members_are_not_found(self, members: Members, search: Principal, bob: Principal) -> None:
        for action in (
            partial(members.remove, search, "search", "nobody"),
            partial(members.set_role, search, "search", "nobody", MemberUpdate(role="viewer")),
        ):
            assert code_of(action)[0] == "not_found"


def test_list_goes_on_where_the_last_page_ended(
    members: Members, search: Principal, admin: Principal, member: Member, clock: Clock
) -> None:
    for number in range(5):
        member(f"user-{number}")
        clock.now = NOW + number // 2  # some come at the same instant
        members.add(admin, "search", MemberCreate(user=f"user-{number}"))

    seen = members.list(search, "search", limit=2)
    while page := members.list(search, "search", after=(seen[-1].created_at, seen[-1].user_id), limit=2):
        seen += page

    assert sorted(each.user_name for each in seen) == ["ada", *(f"user-{number}" for number in range(5))]
    assert [each.created_at for each in seen] == sorted(each.created_at for each in seen)


def test_every_change_is_recorded_with_what_it_changed(
    members: Members, search: Principal, admin: Principal, member: Member, trail: KeptTrail
) -> None:
    bob = member("bob")
    trail.clear()

    members.add(admin, "search", MemberCreate(user="bob"))
    members.set_role(search, "search", "bob", MemberUpdate(role="viewer"))
    members.remove(bob, "search", "bob")

    assert [(caller and caller.user_name, deed.action, deed.target_name) for caller, deed in trail] == [
        ("admin", "member.add", "bob"),
        ("ada", "member.update", "bob"),
        ("bob", "member.remove", "bob"),
    ]
    before, after = trail[1][1].before, trail[1][1].after
    assert before is not None
    assert after is not None
    assert (before["role"], after["role"]) == ("member", "viewer")
    assert (trail[0][1].before, trail[2][1].after) == (None, None)
