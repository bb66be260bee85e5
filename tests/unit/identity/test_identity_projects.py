"""Projects: who has one, who sees it, who changes it, and whose keys belong to it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from identity_fakes import DEFAULT_LIMITS, NOW, Changes
from sqlalchemy import text

from lingpai.errors import LingpaiError
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import (
    KeyCreate,
    KeyUpdate,
    ProjectCreate,
    ProjectUpdate,
    UserCreate,
)
from lingpai.identity.service import Keys, Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.principal import Principal
from lingpai.storage.database import Database

Member = Callable[..., Principal]


def code_of(action: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


class TestPersonalProjects:
    def test_every_user_has_one_of_their_name(
        self, projects: Projects, users: Users, admin: Principal
    ) -> None:
        bob = users.create(admin, UserCreate(name="bob"))

        found = projects.get(admin, "bob")

        assert (found.owner_id, found.owner_name, found.is_personal) == (bob.id, "bob", True)
        assert (found.limits, found.created_at) == ((), NOW)
        assert projects.get(admin, "admin").is_personal

    def test_calls_of_the_local_administrator_belong_to_theirs(
        self, projects: Projects, admin: Principal
    ) -> None:
        assert (admin.project_id, admin.project_name) == (projects.get(admin, "admin").id, "admin")

    def test_keeps_the_name_of_its_user(self, projects: Projects, admin: Principal) -> None:
        rename = partial(projects.update, admin, "admin", ProjectUpdate(name="other"))

        assert code_of(rename) == ("invalid_request", "name")
        assert projects.update(admin, "admin", ProjectUpdate(name="admin", limits=["5/day"])).limits == (
            "5/day",
        )

    def test_user_cannot_be_named_like_a_project_that_exists(
        self, projects: Projects, users: Users, admin: Principal
    ) -> None:
        projects.create(admin, ProjectCreate(name="search"))

        assert code_of(lambda: users.create(admin, UserCreate(name="search"))) == ("already_exists", "name")
        assert [user.name for user in users.list(admin)] == ["admin"]

    def test_user_of_a_release_without_projects_gets_theirs_with_the_first_key(
        self, database: Database, projects: Projects, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")
        with database.write() as connection:
            connection.execute(text("DELETE FROM project_members WHERE user_id = :id"), {"id": bob.user_id})
            connection.execute(text("DELETE FROM projects WHERE name = 'bob'"))

        key = keys.create(bob, KeyCreate(name="a")).key

        assert (key.project_id, key.project_name) == (projects.get(bob, "bob").id, "bob")


class TestMakingAndChanging:
    def test_administrator_makes_projects_for_themselves_and_others(
        self, projects: Projects, admin: Principal, member: Member, changes: Changes
    ) -> None:
        bob = member("bob")

        own = projects.create(admin, ProjectCreate(name="Data Science", limits=["10 / 1s"]))
        other = projects.create(admin, ProjectCreate(name="search", owner="bob"))

        assert (own.owner_name, own.is_personal, own.limits) == ("admin", False, ("10/1s",))
        assert (other.owner_id, other.limits) == (bob.user_id, ())
        assert changes[-2:] == [("project", own.id), ("project", other.id)]
        assert projects.get(admin, own.id) == projects.get(admin, "Data Science") == own
        assert (own.role, other.role, projects.get(bob, "search").role) == ("admin", None, "admin")

    def test_names_are_unique_over_all_owners(
        self, projects: Projects, admin: Principal, member: Member
    ) -> None:
        member("bob")
        projects.create(admin, ProjectCreate(name="search"))

        for taken in ("search", "bob"):
            assert code_of(partial(projects.create, admin, ProjectCreate(name=taken))) == (
                "already_exists",
                "name",
            )
        projects.create(admin, ProjectCreate(name="find"))
        rename = partial(projects.update, admin, "find", ProjectUpdate(name="search"))
        assert code_of(rename) == ("already_exists", "name")

    def test_owner_must_exist(self, projects: Projects, admin: Principal) -> None:
        body = ProjectCreate(name="search", owner="nobody")

        assert code_of(lambda: projects.create(admin, body)) == ("not_found", "owner")

    def test_wrong_limit_and_wrong_name_change_nothing(
        self, projects: Projects, admin: Principal, changes: Changes
    ) -> None:
        projects.create(admin, ProjectCreate(name="search"))
        del changes[:]

        for body in (ProjectUpdate(limits=["lots"]), ProjectUpdate(name="a/b")):
            assert code_of(partial(projects.update, admin, "search", body))[0] == "invalid_request"
        assert changes == []

    def test_change_is_reported_after_it_is_stored(
        self, projects: Projects, admin: Principal, changes: Changes, commits: list[float]
    ) -> None:
        made = projects.create(admin, ProjectCreate(name="search", limits=["5/day"]))

        changed = projects.update(admin, "search", ProjectUpdate(name="find", limits=["none"]))

        assert (changed.id, changed.name, changed.limits) == (made.id, "find", ())
        assert changes[-1] == ("project", made.id)
        assert changes.began[-1] <= commits[-1]

    def test_members_see_those_they_have_a_role_in(
        self, projects: Projects, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")
        member("eve")
        projects.create(admin, ProjectCreate(name="search", owner="bob"))

        assert projects.update(bob, "search", ProjectUpdate(name="find")).role == "admin"
        projects.update(bob, "find", ProjectUpdate(name="search"))
        assert {project.name for project in projects.list(bob)} == {"bob", "search"}
        for reference in ("eve", "admin", projects.get(admin, "eve").id, "nothing"):
            assert code_of(partial(projects.get, bob, reference)) == ("not_found", None)
            update = partial(projects.update, bob, reference, ProjectUpdate(limits=[]))
            assert code_of(update) == ("not_found", None)
        assert code_of(lambda: projects.create(bob, ProjectCreate(name="x")))[0] == "insufficient_scope"


class TestKeysOfProjects:
    def test_key_belongs_to_its_owners_personal_project_unless_said_otherwise(
        self, projects: Projects, keys: Keys, admin: Principal, member: Member
    ) -> None:
        member("bob")
        search = projects.create(admin, ProjectCreate(name="search", owner="bob"))

        usual = keys.create(admin, KeyCreate(name="a", user="bob")).key
        other = keys.create(admin, KeyCreate(name="b", user="bob", project="search")).key

        assert (usual.project_id, usual.project_name) == (projects.get(admin, "bob").id, "bob")
        assert (other.project_id, other.project_name, other.user_name) == (search.id, "search", "bob")
        assert [key.name for key in keys.list(admin, project="search")] == ["b"]

    def test_member_makes_keys_in_their_own_projects_only(
        self, projects: Projects, keys: Keys, admin: Principal, member: Member
    ) -> None:
        bob = member("bob")
        member("eve")
        projects.create(admin, ProjectCreate(name="search", owner="bob"))

        assert keys.create(bob, KeyCreate(name="a", project="search")).key.project_name == "search"
        for other in ("eve", "admin", "nothing"):
            make = partial(keys.create, bob, KeyCreate(name="b", project=other))
            assert code_of(make) == ("not_found", "project")
            assert code_of(partial(keys.list, bob, project=other)) == ("not_found", "project")

    def test_key_of_a_project_with_limits_needs_none_of_its_own(
        self, projects: Projects, keys: Keys, admin: Principal
    ) -> None:
        projects.create(admin, ProjectCreate(name="limited", limits=["5/day"]))
        projects.create(admin, ProjectCreate(name="free"))

        assert keys.create(admin, KeyCreate(name="a", project="limited")).key.limits == ()
        assert keys.create(admin, KeyCreate(name="b", project="free")).key.limits == DEFAULT_LIMITS

    def test_member_does_not_leave_the_limits_of_their_keys_project(
        self, projects: Projects, keys: Keys, admin: Principal, member: Member
    ) -> None:
        """A key held to a project's limits makes no key outside of it, and gives none there more rights."""
        bob = member("bob")
        limited = projects.create(admin, ProjectCreate(name="limited", owner="bob", limits=["5/day"]))
        keys.create(admin, KeyCreate(name="old", user="bob", models=["acme/x"]))
        bob = replace(bob, project_id=limited.id, project_name="limited", project_limits=limited.limits)

        refused = partial(keys.create, bob, KeyCreate(name="a"))
        widened = partial(keys.update, bob, "old", KeyUpdate(models=[]))

        assert code_of(refused) == ("insufficient_scope", "project")
        assert code_of(widened)[0] == "insufficient_scope"
        assert keys.update(bob, "old", KeyUpdate(disabled=True)).disabled_at == NOW
        assert keys.create(bob, KeyCreate(name="b", project="limited")).key.project_id == limited.id


class TestKeyring:
    @pytest.fixture
    def keyring(self, database: Database, peppers: Peppers) -> Keyring:
        return Keyring(SqlCredentialStore(database), peppers)

    def test_principal_knows_its_project_and_its_limits(
        self, projects: Projects, keys: Keys, keyring: Keyring, admin: Principal
    ) -> None:
        project = projects.create(admin, ProjectCreate(name="search", limits=["5/day"]))
        token = keys.create(admin, KeyCreate(name="a", project="search")).token.encode()

        found = keyring.load(token)

        assert found is not None
        assert (found.project_id, found.project_name) == (project.id, "search")
        assert found.project_limits == ("5/day",)
        assert (found.client_id, found.client_limits) == (None, ())

    def test_key_of_a_release_without_projects_still_works(
        self, database: Database, keys: Keys, keyring: Keyring, admin: Principal
    ) -> None:
        token = keys.create(admin, KeyCreate(name="a")).token.encode()
        with database.write() as connection:
            connection.execute(text("UPDATE api_keys SET project_id = NULL"))

        found = keyring.load(token)

        assert found is not None
        assert (found.project_id, found.project_name, found.project_limits) == ("", "admin", ())
        assert keys.get(admin, "a").project_name == "admin"

    def test_keys_of_a_changed_project_are_forgotten_and_others_stay(
        self, projects: Projects, keys: Keys, keyring: Keyring, admin: Principal
    ) -> None:
        project = projects.create(admin, ProjectCreate(name="search"))
        inside, outside = (
            keys.create(admin, KeyCreate(name=name, project=of)).token.encode()
            for name, of in (("a", "search"), ("b", "admin"))
        )
        for token in (inside, outside):
            keyring.remember(token, keyring.load(token))

        keyring.forget_project(project.id)
        keyring.forget_project("prj_unknown")

        assert keyring.find(inside) is None
        assert keyring.find(outside) is not None

    def test_what_was_read_before_a_project_changed_is_not_remembered_after_it(
        self, keys: Keys, keyring: Keyring, admin: Principal
    ) -> None:
        token = keys.create(admin, KeyCreate(name="a")).token.encode()
        stale = keyring.load(token)

        keyring.forget_project("prj_any")
        keyring.remember(token, stale)

        assert keyring.find(token) is None
