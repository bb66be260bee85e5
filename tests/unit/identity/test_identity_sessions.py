"""Sessions: OWASP ASVS 5.0, chapter 7, line by line."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from identity_fakes import Changes, Clock, KeptTrail
from sqlalchemy import event, select

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.people import People
from lingpai.identity.schemas import UserCreate, UserUpdate
from lingpai.identity.scopes import ALL_SCOPES, SCOPES_OF_ROLE
from lingpai.identity.service import Users
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.identity.sessions.service import MOST_PER_USER
from lingpai.identity.sessions.tables import sessions as sessions_table
from lingpai.ids import credential_id, mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database

HOUR, DAY = 3600.0, 86_400.0
SignIn = Callable[..., NewSession]


@pytest.fixture
def alice(users: Users, admin: Principal) -> User:
    return users.create(admin, UserCreate(name="alice"))


@pytest.fixture
def bob(users: Users, admin: Principal) -> User:
    return users.create(admin, UserCreate(name="bob"))


@pytest.fixture
def sign_in(people: People) -> SignIn:
    def sign_in(user: User, *, address: str = "203.0.113.7", user_agent: str = "Firefox") -> NewSession:
        return people.sessions.sign_in(user, address=address, user_agent=user_agent)

    return sign_in


def caller_of(people: People, token: str, address: str = "203.0.113.7") -> Principal | None:
    return asyncio.run(people.sessions.caller_of(token.encode(), address))


def caller(people: People, made: NewSession) -> Principal:
    found = caller_of(people, made.token)
    assert found is not None
    return found


def test_asvs_7_2_2_and_7_2_3_token_is_random_with_256_bits_and_kept_as_hmac(
    people: People, alice: User, sign_in: SignIn, database: Database
) -> None:
    made = sign_in(alice)

    assert made.token.startswith("ss-lp-")
    assert len(made.token) == 67
    assert credential_id(made.token.encode()) == made.session.id
    with database.read() as connection:
        row = connection.execute(select(sessions_table)).one()
    assert len(row.secret_hmac) == 32
    assert made.token.encode() not in repr(tuple(row)).encode()
    assert made.token not in repr(made)


def test_asvs_7_2_4_every_sign_in_makes_a_new_one_and_ends_what_the_browser_had(
    people: People, alice: User, sign_in: SignIn
) -> None:
    first = sign_in(alice)

    second = people.sessions.sign_in(
        alice, address="203.0.113.7", user_agent="", replaces=caller(people, first)
    )

    assert second.token != first.token
    assert caller_of(people, first.token) is None
    assert caller(people, second).user_name == "alice"


def test_session_has_the_scopes_of_its_users_role(
    people: People, alice: User, sign_in: SignIn, users: Users, admin: Principal
) -> None:
    made = sign_in(alice)
    assert caller(people, made).scopes == SCOPES_OF_ROLE["member"]
    assert (caller(people, made).session_id, caller(people, made).key_id) == (made.session.id, None)

    users.update(admin, "alice", UserUpdate(role="admin"))

    assert caller(people, made).scopes == ALL_SCOPES
    users.update(admin, "alice", UserUpdate(role="member"))
    assert caller(people, made).scopes == SCOPES_OF_ROLE["member"], (
        "a role taken away is away on the next call"
    )


def test_asvs_7_3_1_idle_session_ends(people: People, alice: User, sign_in: SignIn, clock: Clock) -> None:
    made = sign_in(alice)
    clock.now += 12 * HOUR - 1
    assert caller_of(people, made.token) is not None
    clock.now += 12 * HOUR - 1
    assert caller_of(people, made.token) is not None

    clock.now += 12 * HOUR

    assert caller_of(people, made.token) is None


def test_asvs_7_3_2_every_session_ends_after_its_lifetime(
    people: People, alice: User, sign_in: SignIn, clock: Clock
) -> None:
    made = sign_in(alice)
    end = clock.now + 30 * DAY
    while clock.now + 11 * HOUR < end:
        clock.now += 11 * HOUR
        assert caller_of(people, made.token) is not None

    clock.now = end

    assert caller_of(people, made.token) is None


def test_asvs_7_4_1_ended_session_is_dead_on_the_server(
    people: People, alice: User, sign_in: SignIn, database: Database
) -> None:
    made = sign_in(alice)
    person = caller(people, made)

    people.sessions.end(person, made.session.id)

    assert caller_of(people, made.token) is None
    with database.read() as connection:
        assert connection.execute(select(sessions_table)).all() == []


def test_asvs_7_4_2_disabled_user_loses_all_sessions_and_enabling_brings_none_back(
    people: People, alice: User, sign_in: SignIn, users: Users, admin: Principal
) -> None:
    made = [sign_in(alice) for _ in range(3)]
    for each in made:
        caller(people, each)

    users.update(admin, "alice", UserUpdate(disabled=True))
    assert [caller_of(people, each.token) for each in made] == [None] * 3
    users.update(admin, "alice", UserUpdate(disabled=False))

    assert [caller_of(people, each.token) for each in made] == [None] * 3


def test_asvs_7_4_3_user_ends_all_other_sessions(
    people: People, alice: User, bob: User, sign_in: SignIn
) -> None:
    here, there, bobs = sign_in(alice), sign_in(alice), sign_in(bob)

    ended = people.sessions.end_others(caller(people, here))

    assert ended == (1, 0)
    assert caller_of(people, there.token) is None
    assert caller_of(people, here.token) is not None
    assert caller_of(people, bobs.token) is not None


def test_asvs_7_4_5_administrator_ends_the_sessions_of_a_user(
    people: People, alice: User, bob: User, sign_in: SignIn, admin: Principal
) -> None:
    alices, bobs = [sign_in(alice), sign_in(alice)], sign_in(bob)

    assert people.sessions.end_others(admin, "alice") == (2, 0)

    assert [caller_of(people, each.token) for each in alices] == [None, None]
    assert caller_of(people, bobs.token) is not None


def test_asvs_7_5_2_user_sees_and_ends_their_own_sessions_and_no_others(
    people: People, alice: User, bob: User, sign_in: SignIn, admin: Principal
) -> None:
    mine, bobs = sign_in(alice, user_agent="Firefox\x1b[2J\u202e on Linux"), sign_in(bob)
    me = caller(people, mine)

    assert [each.id for each in people.sessions.list(me)] == [mine.session.id]
    assert people.sessions.list(me)[0].user_agent == "Firefox[2J on Linux"
    for forbidden in (
        lambda: people.sessions.end(me, bobs.session.id),
        lambda: people.sessions.get(me, bobs.session.id),
        lambda: people.sessions.end_others(me, "bob"),
        lambda: people.sessions.list(me, user="bob"),
    ):
        with pytest.raises(LingpaiError) as caught:
            forbidden()
        assert caught.value.code == "not_found"
    assert {each.user_name for each in people.sessions.list(admin)} == {"alice", "bob"}
    assert [each.user_name for each in people.sessions.list(admin, user="bob")] == ["bob"]


def test_list_leaves_out_what_is_over(
    people: People, alice: User, sign_in: SignIn, clock: Clock, admin: Principal
) -> None:
    sign_in(alice)
    clock.now += 13 * HOUR
    new = sign_in(alice)

    assert [each.id for each in people.sessions.list(admin)] == [new.session.id]


def test_wrong_secret_for_a_known_id_is_nobody(people: People, alice: User, sign_in: SignIn) -> None:
    made = sign_in(alice)
    caller(people, made)  # it is in memory now
    other = mint_credential("ss-lp-").token
    forged = _with_id(other, made.session.id)

    assert credential_id(forged.encode()) == made.session.id
    assert caller_of(people, forged) is None


@pytest.mark.parametrize(
    "token", ["", "x", "ss-lp-", "sk-lp-" + "a" * 61, "ss-lp-" + "a" * 61, "\u00e9" * 67]
)
def test_garbage_is_nobody(people: People, token: str) -> None:
    assert caller_of(people, token) is None


def test_credential_of_another_kind_is_no_session(people: People, alice: User, admin: Principal) -> None:
    invitation = people.invitations.make(admin, "alice").token

    assert caller_of(people, invitation) is None


def test_flood_of_well_formed_garbage_meets_a_bound(people: People, alice: User, sign_in: SignIn) -> None:
    made = sign_in(alice)
    caller(people, made)

    async def flood() -> LingpaiError | None:
        for _ in range(200):
            try:
                await people.sessions.caller_of(mint_credential("ss-lp-").token.encode(), "203.0.113.9")
            except LingpaiError as error:
                return error
        return None

    error = asyncio.run(flood())

    assert error is not None
    assert (error.code, "retry-after" in error.headers) == ("rate_limit_exceeded", True)
    assert caller_of(people, made.token, "203.0.113.9") is not None, "who is known is not held up"


def test_session_in_use_costs_one_look_at_the_database_a_second(
    people: People, alice: User, sign_in: SignIn, database: Database, clock: Clock
) -> None:
    made = sign_in(alice)
    statements: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    for _ in range(50):
        caller(people, made)
    assert [text.split()[0] for text in statements] == ["BEGIN", "SELECT"]
    clock.now += 1.0
    caller(people, made)

    assert len(statements) == 4


def test_change_in_another_process_is_seen_within_a_second(
    people: People, alice: User, sign_in: SignIn, database: Database, clock: Clock
) -> None:
    made = sign_in(alice)
    caller(people, made)
    with database.write() as connection:  # nobody tells this process
        connection.execute(sessions_table.delete())

    clock.now += 1.0

    assert caller_of(people, made.token) is None


def test_last_use_is_written_once_a_minute(
    *, people: People, alice: User, sign_in: SignIn, clock: Clock, commits: list[float], admin: Principal
) -> None:
    made = sign_in(alice)
    writes = []

    for _ in range(100):
        clock.now += 2.0
        caller(people, made)
        writes.append(people.sessions.get(admin, made.session.id).last_seen_at)

    assert len(set(writes)) == 4  # 200 seconds


def test_session_that_ends_while_it_is_read_is_not_remembered(
    people: People, alice: User, sign_in: SignIn
) -> None:
    made = sign_in(alice)
    person = caller(people, made)
    people.sessions._memory.forget([made.session.id])
    read, ended = threading.Event(), threading.Event()
    original = people.sessions._note_use

    def slow(row: object) -> None:
        read.set()
        ended.wait(10)
        original(row)  # type: ignore[arg-type]

    people.sessions._note_use = slow  # type: ignore[method-assign]
    late = threading.Thread(target=lambda: caller_of(people, made.token))
    late.start()
    read.wait(10)
    people.sessions.end(person, made.session.id)
    ended.set()
    late.join(10)

    assert caller_of(people, made.token) is None


def test_password_that_was_changed_in_between_signs_nobody_in(
    people: People, alice: User, sign_in: SignIn, database: Database
) -> None:
    from lingpai.identity.passwords.store import SqlPasswordStore

    with database.write() as connection:
        SqlPasswordStore().set_hash(connection, alice.id, "$argon2id$new", 1.0)

    with pytest.raises(LingpaiError) as caught:
        sign_in(alice)
    assert caught.value.code == "invalid_credentials"


def test_user_who_was_disabled_in_between_is_not_signed_in(
    people: People, alice: User, sign_in: SignIn, users: Users, admin: Principal
) -> None:
    users.update(admin, "alice", UserUpdate(disabled=True))

    with pytest.raises(LingpaiError):
        sign_in(alice)


def test_sessions_of_a_user_are_bounded_and_the_longest_unused_makes_room(
    people: People, alice: User, sign_in: SignIn, clock: Clock, admin: Principal
) -> None:
    made = []
    for _ in range(MOST_PER_USER + 3):
        clock.now += 1
        made.append(sign_in(alice))

    assert len(people.sessions.list(admin, limit=200)) == MOST_PER_USER
    assert [caller_of(people, each.token) is None for each in made[:4]] == [True, True, True, False]


def test_every_begin_and_end_is_recorded_with_its_reason(
    *,
    people: People,
    alice: User,
    sign_in: SignIn,
    trail: KeptTrail,
    clock: Clock,
    users: Users,
    admin: Principal,
) -> None:
    signed_out, ended, expired = sign_in(alice), sign_in(alice), sign_in(alice)
    people.sessions.end(caller(people, signed_out), signed_out.session.id)
    people.sessions.end(admin, ended.session.id)
    clock.now += 31 * DAY
    assert people.sessions.remove_expired() == 1
    sign_in(alice)
    users.update(admin, "alice", UserUpdate(disabled=True))

    assert [reason for action, _, reason in trail.said() if action == "session.end"] == [
        "signed out",
        "ended by an administrator",
        "expired",
        "the user was disabled",
    ]
    assert [action for action, _, _ in trail.said()].count("session.create") == 4
    assert expired.token not in repr(trail.deeds)


def test_sign_in_that_cannot_be_recorded_does_not_happen(
    people: People, alice: User, sign_in: SignIn, trail: KeptTrail, admin: Principal
) -> None:
    trail.is_full = True

    with pytest.raises(OSError, match="no space"):
        sign_in(alice)
    assert people.sessions.list(admin) == []


def test_sessions_work_under_an_older_pepper_and_not_without_it(
    people: People, alice: User, sign_in: SignIn, changes: Changes
) -> None:
    from lingpai.identity.peppers import Peppers

    made = sign_in(alice)

    people.sessions._peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
    assert caller_of(people, made.token) is not None
    people.sessions._peppers = Peppers({2: b"q" * 32})
    people.sessions._memory.forget([made.session.id])

    assert caller_of(people, made.token) is None


def _with_id(token: str, session_id: str) -> str:
    from lingpai.ids import _checksum

    body = f"ss-lp-{session_id}{token[18:61]}"
    return body + _checksum(body.encode())
