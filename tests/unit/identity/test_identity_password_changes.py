"""Changing passwords: with the old one, and with all that came out of it ended."""

import asyncio
from typing import Any

import pytest
from identity_fakes import Changes, Clock, KeptTrail
from sqlalchemy import select

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.oauth.tables import token_families
from lingpai.identity.people import People
from lingpai.identity.schemas import UserCreate
from lingpai.identity.service import Users
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.principal import Principal
from lingpai.storage.database import Database

OLD, NEW = "the old harbour lamp", "the new harbour lamp"


@pytest.fixture
def alice(people: People, users: Users, admin: Principal) -> User:
    hash_ = people.password_changes.hash_for_new_user(admin, "alice", OLD)
    return users.create(admin, UserCreate(name="alice"), password_hash=hash_)


def change(people: People, caller: Principal, reference: str = "alice", **fields: Any) -> NewSession | None:
    given = {
        "password": NEW,
        "current": None,
        "address": "203.0.113.7",
        "user_agent": "",
        "device": None,
        **fields,
    }
    return asyncio.run(people.password_changes.change(caller, reference, **given))


def refusal(
    people: People, caller: Principal, reference: str = "alice", **fields: Any
) -> tuple[str, str | None]:
    with pytest.raises(LingpaiError) as caught:
        change(people, caller, reference, **fields)
    return caught.value.code, caught.value.param


def signs_in(people: People, password: str) -> bool:
    return isinstance(asyncio.run(people.passwords.verify("alice", password, "")), User)


def session_of(people: People, user: User) -> tuple[str, Principal]:
    made = people.sessions.sign_in(user, address="", user_agent="")
    caller = asyncio.run(people.sessions.caller_of(made.token.encode(), ""))
    assert caller is not None
    return made.token, caller


def test_asvs_6_2_3_change_needs_the_old_password_and_sets_the_new_one(people: People, alice: User) -> None:
    _, me = session_of(people, alice)

    assert refusal(people, me) == ("invalid_request", "current_password")
    assert refusal(people, me, current="a wrong password") == ("invalid_credentials", None)
    assert signs_in(people, OLD)
    change(people, me, current=OLD)

    assert (signs_in(people, OLD), signs_in(people, NEW)) == (False, True)


def test_owasp_api2_guessing_the_old_password_is_slowed_down_like_signing_in(
    people: People, alice: User
) -> None:
    _, me = session_of(people, alice)

    codes = [refusal(people, me, current=f"guess {number}")[0] for number in range(8)]

    assert codes == ["invalid_credentials"] * 5 + ["rate_limit_exceeded"] * 3


def test_new_password_is_checked_like_any_other(people: People, alice: User) -> None:
    _, me = session_of(people, alice)

    for weak in ("short", "password123", "alice2026"):
        assert refusal(people, me, current=OLD, password=weak) == ("invalid_request", "password")
    assert signs_in(people, OLD)


def test_asvs_7_4_3_change_ends_all_sessions_and_the_caller_gets_a_new_one(
    people: People, alice: User
) -> None:
    mine, me = session_of(people, alice)
    other, _ = session_of(people, alice)

    made = change(people, me, current=OLD)

    assert made is not None
    alive = [
        asyncio.run(people.sessions.caller_of(token.encode(), "")) for token in (mine, other, made.token)
    ]
    assert [each is not None for each in alive] == [False, False, True]


def test_rfc9700_s2_2_2_change_revokes_the_refresh_tokens(
    people: People, alice: User, database: Database, changes: Changes
) -> None:
    with database.write() as connection:
        row = {"id": "fam_1", "user_id": alice.id, "scopes": [], "created_at": 1.0, "expires_at": 9e9}
        connection.execute(token_families.insert(), row)
    _, me = session_of(people, alice)
    changes.clear()

    change(people, me, current=OLD)

    with database.read() as connection:
        assert connection.execute(select(token_families.c.revoked_because)).scalar_one() == "password changed"
    assert changes == [("user", alice.id)]


def test_caller_with_a_key_changes_their_password_with_the_old_one_and_gets_no_session(
    people: People, alice: User
) -> None:
    with_key = Principal(alice.id, "alice", "member", key_id="k" * 12)

    assert refusal(people, with_key) == ("invalid_request", "current_password")
    assert change(people, with_key, current=OLD) is None
    assert signs_in(people, NEW)


def test_key_cannot_set_a_first_password(people: People, users: Users, admin: Principal) -> None:
    """Else a leaked key of narrow scope would become a session with all scopes."""
    bob = users.create(admin, UserCreate(name="bob"))
    with_key = Principal(bob.id, "bob", "member", key_id="k" * 12)

    assert refusal(people, with_key, "bob", current="") == ("invalid_credentials", None)


def test_administrator_never_sets_the_password_of_another(
    people: People, alice: User, users: Users, admin: Principal
) -> None:
    boss = users.create(admin, UserCreate(name="boss", role="admin"))
    caller = Principal(boss.id, "boss", "admin", session_id="s" * 12)

    assert refusal(people, caller, current=OLD) == ("insufficient_scope", None)
    with pytest.raises(LingpaiError) as caught:
        people.password_changes.hash_for_new_user(caller, "carol", NEW)
    assert (caught.value.code, caught.value.param) == ("insufficient_scope", "password")
    assert signs_in(people, OLD)


def test_member_learns_nothing_about_others(
    people: People, alice: User, users: Users, admin: Principal
) -> None:
    bob = users.create(admin, UserCreate(name="bob"))
    caller = Principal(bob.id, "bob", "member", session_id="s" * 12)

    assert refusal(people, caller, "alice") == refusal(people, caller, "nobody") == ("not_found", None)


def test_operator_on_the_admin_socket_sets_passwords(people: People, alice: User, admin: Principal) -> None:
    assert admin.is_local
    assert change(people, admin) is None
    assert signs_in(people, NEW)


def test_new_password_ends_the_wait_that_guesses_have_caused(
    people: People, alice: User, admin: Principal
) -> None:
    for number in range(12):
        asyncio.run(people.passwords.verify("alice", f"guess {number}", f"203.0.113.{number}"))

    change(people, admin)

    assert signs_in(people, NEW)


def test_change_is_recorded_and_does_not_happen_unrecorded(
    people: People, alice: User, admin: Principal, trail: KeptTrail
) -> None:
    trail.is_full = True
    with pytest.raises(OSError, match="no space"):
        change(people, admin)
    trail.is_full = False
    assert signs_in(people, OLD)

    change(people, admin)

    assert ("user.set_password", "done", None) in trail.said()
    assert OLD not in repr(trail.deeds) + repr(admin)
    assert NEW not in repr(trail.deeds)


def test_of_two_changes_at_a_time_the_second_is_refused(people: People, alice: User, clock: Clock) -> None:
    """Whoever knew the old password a moment ago must not undo what its owner has just done."""
    _, me = session_of(people, alice)
    _, thief = session_of(people, alice)
    user = people.password_changes._user(me, "alice")
    clock.now += 1
    change(people, me, current=OLD)

    with pytest.raises(LingpaiError) as caught:
        people.password_changes._write(thief, user, "$argon2id$", "", "")
    assert caught.value.code == "invalid_credentials"
