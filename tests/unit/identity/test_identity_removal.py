"""Users leave: their credentials die, their name is free, and what shows their past stays."""

import asyncio
from typing import Any

import pytest
from identity_fakes import Changes, KeptTrail
from sqlalchemy import Table, select

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.keyring import Keyring
from lingpai.identity.oauth.tables import access_tokens, clients, refresh_tokens, token_families
from lingpai.identity.people import People
from lingpai.identity.peppers import Peppers
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import KeyCreate, ProjectCreate, UserCreate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.sessions.tables import invitations, sign_in_places
from lingpai.identity.store import SqlCredentialStore
from lingpai.identity.tables import project_members
from lingpai.identity.tables import users as users_table
from lingpai.principal import Principal
from lingpai.storage.database import Database


@pytest.fixture
def alice(users: Users, admin: Principal) -> User:
    return users.create(admin, UserCreate(name="alice"))


@pytest.fixture
def boss(users: Users, admin: Principal) -> Principal:
    """Another administrator."""
    user = users.create(admin, UserCreate(name="boss", role="admin"))
    return Principal(user.id, "boss", "admin")


def rows(database: Database, table: Table) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table)).all())


def refusal(people: People, caller: Principal, name: str) -> str:
    with pytest.raises(LingpaiError) as caught:
        people.removal.remove(caller, name)
    return caught.value.code


def test_key_of_a_deleted_user_is_no_key_any_more(
    *, people: People, keys: Keys, alice: User, admin: Principal, database: Database, peppers: Peppers
) -> None:
    token = keys.create(admin, KeyCreate(name="k", user="alice")).token.encode()
    assert Keyring(SqlCredentialStore(database), peppers).load(token) is not None

    people.removal.remove(admin, "alice")

    assert Keyring(SqlCredentialStore(database), peppers).load(token) is None
    assert keys.list(admin) == []


def test_sessions_invitations_and_places_go(
    people: People, alice: User, admin: Principal, database: Database
) -> None:
    session = people.sessions.sign_in(alice, address="203.0.113.7", user_agent="")
    invitation = people.invitations.make(admin, "alice")
    with database.write() as connection:
        place = {"user_id": alice.id, "network": "203.0.113.7", "last_used_at": 1.0}
        connection.execute(sign_in_places.insert(), place)

    people.removal.remove(admin, "alice")

    assert asyncio.run(people.sessions.caller_of(session.token.encode(), "")) is None
    with pytest.raises(LingpaiError):
        people.invitations.find(invitation.token)
    assert rows(database, invitations) == rows(database, sign_in_places) == []


def test_clients_and_tokens_go(
    people: People, alice: User, admin: Principal, database: Database, projects: Projects
) -> None:
    project = projects.list(admin)[-1]
    common = {"scopes": [], "created_at": 1.0, "expires_at": 9e9}
    with database.write() as connection:
        client = {
            "id": "c" * 12, "name": "batch", "user_id": alice.id, "project_id": project.id, "secret_hmac": b"x", "grants": [],
            "models": [], "limits": [], "allowed_ips": [], "signature_required": False, **common,
        }  # fmt: skip
        connection.execute(clients.insert(), client)
        # another user's family, with tokens that her client has got
        connection.execute(
            token_families.insert(),
            {"id": "fam_1", "user_id": admin.user_id, "client_id": "c" * 12, **common},
        )
        connection.execute(
            access_tokens.insert(), {"id": "a" * 12, "user_id": admin.user_id, "family_id": "fam_1", **common}
        )
        connection.execute(
            access_tokens.insert(), {"id": "b" * 12, "user_id": alice.id, "client_id": "c" * 12, **common}
        )
        refresh = {
            "id": "r" * 12,
            "secret_hmac": b"x",
            "pepper_version": 1,
            "family_id": "fam_1",
            "created_at": 1.0,
            "expires_at": 9e9,
        }
        connection.execute(refresh_tokens.insert(), refresh)

    people.removal.remove(admin, "alice")

    client_row, family = rows(database, clients)[0], rows(database, token_families)[0]
    assert (client_row.secret_hmac, client_row.deleted_at) == (None, 1_795_000_000.0)
    assert family.revoked_because == "the user was deleted"
    assert rows(database, access_tokens) == rows(database, refresh_tokens) == []


def test_row_stays_under_a_name_that_nobody_can_choose_and_the_name_is_free(
    people: People, alice: User, users: Users, admin: Principal, database: Database
) -> None:
    people.removal.remove(admin, "alice")

    gone = next(row for row in rows(database, users_table) if row.id == alice.id)
    assert gone.name == f"alice~{alice.id.removeprefix('usr_')}"
    assert (gone.deleted_at, gone.disabled_at, gone.password_hash) == (1_795_000_000.0, 1_795_000_000.0, None)
    with pytest.raises(LingpaiError):
        users.create(admin, UserCreate(name=gone.name))
    again = users.create(admin, UserCreate(name="alice"))
    assert again.id != alice.id
    people.removal.remove(admin, "alice")


def test_longest_name_has_room_for_the_mark(
    people: People, users: Users, admin: Principal, database: Database
) -> None:
    for _ in range(2):
        made = users.create(admin, UserCreate(name="n" * 64))
        people.removal.remove(admin, made.id)

    names = {row.name for row in rows(database, users_table) if row.deleted_at}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}


def test_deleted_user_does_not_exist_for_anybody(
    people: People, alice: User, users: Users, admin: Principal
) -> None:
    people.removal.remove(admin, "alice")

    for reference in ("alice", alice.id, f"alice~{alice.id.removeprefix('usr_')}"):
        for act in (
            lambda: users.get(admin, reference),  # noqa: B023  called at once
            lambda: users.update(admin, reference, UserUpdate(disabled=False)),  # noqa: B023
            lambda: people.invitations.make(admin, reference),  # noqa: B023
            lambda: people.removal.remove(admin, reference),  # noqa: B023
        ):
            with pytest.raises(LingpaiError) as caught:
                act()
            assert caught.value.code == "not_found"
    assert "alice" not in {user.name for user in users.list(admin)}


def test_projects_that_nobody_shares_are_renamed_along_and_others_stay(
    *,
    people: People,
    alice: User,
    projects: Projects,
    keys: Keys,
    users: Users,
    admin: Principal,
    database: Database,
) -> None:
    bob = users.create(admin, UserCreate(name="bob"))
    for name in ("alone", "shared", "with-a-key"):
        projects.create(admin, ProjectCreate(name=name, owner="alice"))
    with database.write() as connection:
        for name in ("shared", "with-a-key"):
            row = {
                "project_id": projects.get(admin, name).id,
                "user_id": bob.id,
                "role": "member",
                "created_at": 1.0,
            }
            connection.execute(project_members.insert(), row)
    keys.create(admin, KeyCreate(name="k", user="bob", project="with-a-key"))

    people.removal.remove(admin, "alice")

    names = {project.name for project in projects.list(admin)}
    mark = alice.id.removeprefix("usr_")
    assert {"shared", "with-a-key", f"alice~{mark}"} <= names
    assert not {"alone", "alice"} & names
    projects.create(admin, ProjectCreate(name="alone"))


def test_nobody_deletes_themselves(people: People, boss: Principal) -> None:
    assert refusal(people, boss, "boss") == "invalid_request"


def test_user_of_the_admin_socket_stays(people: People, boss: Principal) -> None:
    """Commands on the server's own machine act as `admin`; without that user nobody could repair anything."""
    assert refusal(people, boss, "admin") == "invalid_request"


def test_last_administrator_stays(people: People, users: Users, boss: Principal, admin: Principal) -> None:
    users.update(boss, "admin", UserUpdate(disabled=True))

    assert refusal(people, admin, "boss") == "invalid_request"


def test_members_delete_nobody(people: People, alice: User, users: Users, admin: Principal) -> None:
    users.create(admin, UserCreate(name="bob"))
    me = Principal(alice.id, "alice", "member")

    assert refusal(people, me, "alice") == "insufficient_scope"
    assert refusal(people, me, "bob") == refusal(people, me, "nobody") == "not_found"


def test_it_is_recorded_and_told_and_does_not_happen_unrecorded(
    *, people: People, alice: User, admin: Principal, users: Users, trail: KeptTrail, changes: Changes
) -> None:
    trail.is_full = True
    with pytest.raises(OSError, match="no space"):
        people.removal.remove(admin, "alice")
    assert users.get(admin, "alice")
    trail.is_full = False
    changes.clear()

    people.removal.remove(admin, "alice")

    deed = trail.deeds[-1]
    assert (deed.action, deed.target_name, deed.before) == (
        "user.delete",
        "alice",
        {"name": "alice", "role": "member", "disabled": False},
    )
    assert changes == [("user", alice.id)]
