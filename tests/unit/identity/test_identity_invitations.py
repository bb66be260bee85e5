"""Invitations: the only way to a first password, and to a new one when the old is forgotten (OWASP ASVS 5.0, 6.4.1)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from identity_fakes import Changes, Clock, KeptTrail
from sqlalchemy import select

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.oauth.tables import access_tokens, token_families
from lingpai.identity.people import People
from lingpai.identity.schemas import UserCreate, UserUpdate
from lingpai.identity.service import Users
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.identity.sessions.tables import invitations
from lingpai.ids import mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database

DAY = 86_400.0
PASSWORD = "quiet harbour lamp"


@pytest.fixture
def alice(users: Users, admin: Principal) -> User:
    return users.create(admin, UserCreate(name="alice"))


def accept(people: People, token: str, password: str = PASSWORD) -> tuple[User, NewSession]:
    hash_ = people.passwords.hash_blocking(password)
    return people.invitations.accept(token, hash_, address="203.0.113.7", user_agent="")


def refused(people: People, token: str) -> str:
    with pytest.raises(LingpaiError) as caught:
        accept(people, token)
    assert (caught.value.code, caught.value.status) == ("invalid_invitation", 401)
    return caught.value.message


def test_accepting_sets_the_password_and_signs_in(people: People, alice: User, admin: Principal) -> None:
    made = people.invitations.make(admin, "alice")

    user, session = accept(people, made.token)

    assert (user.name, user.password_changed_at) == ("alice", 1_795_000_000.0)
    assert asyncio.run(people.sessions.caller_of(session.token.encode(), "")) is not None
    verified = asyncio.run(people.passwords.verify("alice", PASSWORD, "203.0.113.7"))
    assert isinstance(verified, User)


def test_asvs_6_4_1_secret_is_random_kept_as_hmac_and_shown_once(
    people: People, alice: User, admin: Principal, database: Database
) -> None:
    made = people.invitations.make(admin, "alice")

    assert made.token.startswith("in-lp-")
    assert len(made.token) == 67
    assert made.token not in repr(made)
    with database.read() as connection:
        row = connection.execute(select(invitations)).one()
    assert made.token.encode() not in repr(tuple(row)).encode()
    assert made.token not in repr(people.invitations.find(made.token))


def test_asvs_6_4_1_one_use(people: People, alice: User, admin: Principal) -> None:
    made = people.invitations.make(admin, "alice")
    accept(people, made.token)

    refused(people, made.token)


def test_of_several_who_accept_at_the_same_time_one_succeeds(
    people: People, alice: User, admin: Principal
) -> None:
    made = people.invitations.make(admin, "alice")
    hash_ = people.passwords.hash_blocking(PASSWORD)

    def try_it(_: int) -> bool:
        try:
            people.invitations.accept(made.token, hash_, address="", user_agent="")
        except LingpaiError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(try_it, range(16))).count(True) == 1


def test_asvs_6_4_1_expires_after_three_days(
    people: People, alice: User, admin: Principal, clock: Clock
) -> None:
    made = people.invitations.make(admin, "alice")
    assert made.expires_at == clock.now + 3 * DAY
    clock.now += 3 * DAY - 1
    assert people.invitations.find(made.token).user_name == "alice"

    clock.now += 1

    refused(people, made.token)


def test_new_invitation_replaces_the_earlier_one(people: People, alice: User, admin: Principal) -> None:
    first, second = people.invitations.make(admin, "alice"), people.invitations.make(admin, "alice")

    refused(people, first.token)
    accept(people, second.token)


def test_withdrawn_invitation_is_worthless(people: People, alice: User, admin: Principal) -> None:
    made = people.invitations.make(admin, "alice")
    people.invitations.withdraw(admin, "alice")

    refused(people, made.token)
    with pytest.raises(LingpaiError) as caught:
        people.invitations.withdraw(admin, "alice")
    assert caught.value.code == "not_found"


def test_one_answer_for_all_that_is_wrong(
    people: People, alice: User, admin: Principal, clock: Clock
) -> None:
    used, expired = people.invitations.make(admin, "alice"), people.invitations.make(admin, "admin")
    accept(people, used.token)
    clock.now += 4 * DAY
    changed = expired.token[:-1] + ("x" if expired.token[-1] != "x" else "y")

    said = {
        refused(people, token)
        for token in (
            used.token,
            expired.token,
            changed,
            mint_credential("in-lp-").token,
            "",
            "x",
            mint_credential("sk-lp-").token,
        )
    }

    assert len(said) == 1


def test_disabled_user_cannot_accept_nor_be_invited(
    people: People, alice: User, admin: Principal, users: Users
) -> None:
    made = people.invitations.make(admin, "alice")
    users.update(admin, "alice", UserUpdate(disabled=True))

    refused(people, made.token)
    with pytest.raises(LingpaiError) as caught:
        people.invitations.make(admin, "alice")
    assert caught.value.code == "invalid_request"


def test_only_administrators_invite_and_others_do_not_exist_for_members(
    people: People, alice: User, users: Users, admin: Principal
) -> None:
    users.create(admin, UserCreate(name="bob"))
    me = Principal(alice.id, "alice", "member")

    for name, code in (("alice", "insufficient_scope"), ("bob", "not_found"), ("nobody", "not_found")):
        for act in (people.invitations.make, people.invitations.withdraw):
            with pytest.raises(LingpaiError) as caught:
                act(me, name)
            assert caught.value.code == code


def test_old_password_works_until_the_invitation_is_accepted_and_not_after(
    people: People, alice: User, admin: Principal
) -> None:
    accept(people, people.invitations.make(admin, "alice").token, "the old harbour lamp")
    reset = people.invitations.make(admin, "alice")
    assert isinstance(asyncio.run(people.passwords.verify("alice", "the old harbour lamp", "")), User)

    accept(people, reset.token)

    assert not isinstance(asyncio.run(people.passwords.verify("alice", "the old harbour lamp", "")), User)


def test_accepting_ends_earlier_sessions_and_token_families(
    people: People, alice: User, admin: Principal, database: Database, changes: Changes
) -> None:
    _, before = accept(people, people.invitations.make(admin, "alice").token)
    with database.write() as connection:
        family = {"id": "fam_1", "user_id": alice.id, "scopes": [], "created_at": 1.0, "expires_at": 9e9}
        connection.execute(token_families.insert(), family)
        token = {
            "id": "t" * 12,
            "user_id": alice.id,
            "family_id": "fam_1",
            "scopes": [],
            "created_at": 1.0,
            "expires_at": 9e9,
        }
        connection.execute(access_tokens.insert(), token)
    changes.clear()

    accept(people, people.invitations.make(admin, "alice").token)

    assert asyncio.run(people.sessions.caller_of(before.token.encode(), "")) is None
    with database.read() as connection:
        row = connection.execute(select(token_families)).one()
        assert (row.revoked_at, row.revoked_because) == (1_795_000_000.0, "invitation accepted")
        assert connection.execute(select(access_tokens)).all() == []
    assert changes == [("user", alice.id)], "what is remembered of the user is dropped"


def test_accepting_that_cannot_be_recorded_uses_nothing_up(
    people: People, alice: User, admin: Principal, trail: KeptTrail
) -> None:
    made = people.invitations.make(admin, "alice")
    trail.is_full = True
    with pytest.raises(OSError, match="no space"):
        accept(people, made.token)
    trail.is_full = False

    accept(people, made.token)


def test_everything_is_recorded(
    people: People, alice: User, admin: Principal, trail: KeptTrail, clock: Clock
) -> None:
    accept(people, people.invitations.make(admin, "alice").token)
    people.invitations.make(admin, "alice")
    people.invitations.withdraw(admin, "alice")
    last = people.invitations.make(admin, "alice")
    clock.now += 4 * DAY
    assert people.invitations.remove_expired() == 1

    assert [action for action, _, _ in trail.said() if action.startswith("invitation")] == [
        "invitation.create",
        "invitation.accept",
        "invitation.create",
        "invitation.delete",
        "invitation.create",
        "invitation.expire",
    ]
    assert last.token not in repr(trail.deeds)
