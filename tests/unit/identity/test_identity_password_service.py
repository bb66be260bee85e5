"""Checking passwords: one answer for all who cannot sign in, after the same time, and never without bounds."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from identity_fakes import Clock, KeptTrail
from sqlalchemy import select, update

from lingpai.identity.interfaces import User
from lingpai.identity.passwords.service import MOST_CHECKS_PER_ACCOUNT, Refusal
from lingpai.identity.passwords.store import MOST_PLACES
from lingpai.identity.people import People
from lingpai.identity.schemas import UserCreate, UserUpdate
from lingpai.identity.service import Users
from lingpai.identity.sessions.tables import sign_in_places
from lingpai.identity.settings import IdentitySettings
from lingpai.identity.tables import users as users_table
from lingpai.principal import Principal
from lingpai.storage.database import Database

PASSWORD = "quiet harbour lamp"
ELSEWHERE = "203.0.113.7"
HOME = "198.51.100.1"

MakeUser = Callable[..., User]


@pytest.fixture
def make_user(people: People, users: Users, admin: Principal) -> MakeUser:
    def make(name: str, password: str | None = PASSWORD) -> User:
        hash_ = people.password_changes.hash_for_new_user(admin, name, password)
        return users.create(admin, UserCreate(name=name), password_hash=hash_)

    return make


def verify(
    people: People, name: str, password: str = PASSWORD, address: str = ELSEWHERE, **options: Any
) -> User | Refusal:
    return asyncio.run(people.passwords.verify(name, password, address, **options))


def test_right_password_gives_the_user(people: People, make_user: MakeUser) -> None:
    made = make_user("alice")

    assert verify(people, "alice") == made


def test_asvs_6_3_8_all_who_cannot_sign_in_get_one_answer(
    people: People, make_user: MakeUser, users: Users, admin: Principal, trail: KeptTrail
) -> None:
    make_user("alice")
    make_user("disabled")
    make_user("without", None)
    users.update(admin, "disabled", UserUpdate(disabled=True))
    trail.deeds.clear()

    found = [
        verify(people, "nobody"),
        verify(people, "alice", "wrong password"),
        verify(people, "disabled"),
        verify(people, "without"),
        verify(people, "without", ""),
        verify(people, ""),
    ]

    assert found == [Refusal("wrong")] * 6
    assert [deed.reason for deed in trail.deeds] == [
        "no such user",
        "wrong password",
        "the user is disabled",
        "the user has no password",
        "the user has no password",
        "no such user",
    ], "administrators see the difference in the audit trail, and nobody else does"


def test_id_of_a_user_is_no_name_to_sign_in_with(people: People, make_user: MakeUser) -> None:
    assert verify(people, make_user("alice").id) == Refusal("wrong")


def test_name_of_somebody_who_does_not_exist_is_not_recorded(people: People, trail: KeptTrail) -> None:
    """People type passwords where their names belong."""
    verify(people, "my-secret-password", "x")

    assert (trail.deeds[0].target_id, trail.deeds[0].target_name) == ("", "")
    assert "my-secret-password" not in repr(trail.deeds)


def test_password_is_nowhere_in_what_could_be_logged(
    people: People, make_user: MakeUser, caplog: pytest.LogCaptureFixture
) -> None:
    make_user("alice")
    with caplog.at_level("DEBUG"):
        found = verify(people, "alice", "my very secret guess")

    assert "my very secret guess" not in caplog.text + repr(found) + repr(people.passwords)


def test_unicode_forms_of_one_password_sign_in(people: People, make_user: MakeUser) -> None:
    make_user("alice", "façade über naïve")

    assert isinstance(verify(people, "alice", "fac\u0327ade u\u0308ber nai\u0308ve"), User)


def test_account_that_is_guessed_at_waits_and_says_for_how_long(
    people: People, make_user: MakeUser, clock: Clock
) -> None:
    make_user("alice")
    for _ in range(5):
        assert verify(people, "alice", "wrong") == Refusal("wrong")

    assert verify(people, "alice") == Refusal("throttled", 1)
    clock.now += 1
    assert isinstance(verify(people, "alice"), User)


def test_unknown_account_waits_like_a_known_one(people: People, make_user: MakeUser) -> None:
    make_user("alice")

    seen = {
        name: [verify(people, name, "wrong", f"203.0.113.{number}") for number in range(8)]
        for name in ("alice", "nobody")
    }

    assert seen["alice"] == seen["nobody"]
    assert seen["alice"].count(Refusal("throttled", 1)) == 3


def test_asvs_6_3_1_attempts_at_the_same_time_do_not_slip_through(
    people: People, make_user: MakeUser
) -> None:
    make_user("alice")

    async def attack() -> list[User | Refusal]:
        guesses = (people.passwords.verify("alice", f"guess {n}", f"203.0.113.{n}") for n in range(60))
        return list(await asyncio.gather(*guesses))

    assert asyncio.run(attack()).count(Refusal("wrong")) <= 5


def test_owner_signs_in_from_a_place_they_know_while_others_guess(
    people: People, make_user: MakeUser
) -> None:
    make_user("alice")
    assert isinstance(verify(people, "alice", address=HOME), User)
    for number in range(100):
        verify(people, "alice", "wrong", f"203.0.113.{number}")

    assert verify(people, "alice", address="192.0.2.1").reason == "throttled"  # type: ignore[union-attr]
    assert isinstance(verify(people, "alice", address=HOME), User)


def test_owner_signs_in_on_a_device_they_know_from_wherever_it_is(
    people: People, make_user: MakeUser
) -> None:
    make_user("alice")
    device = people.devices.issue("alice")
    for _ in range(100):
        verify(people, "alice", "wrong", ELSEWHERE)

    assert isinstance(verify(people, "alice", address=ELSEWHERE, device=device), User)


def test_device_of_somebody_else_opens_nothing(people: People, make_user: MakeUser) -> None:
    make_user("alice")
    device = people.devices.issue("mallory")

    found = [verify(people, "alice", "wrong", f"203.0.113.{n}", device=device) for n in range(8)]

    assert found.count(Refusal("wrong")) == 5


def test_known_places_survive_a_restart_and_are_few(
    people: People, make_user: MakeUser, database: Database, clock: Clock
) -> None:
    user = make_user("alice")
    for number in range(MOST_PLACES + 5):
        clock.now += 60
        verify(people, "alice", address=f"198.51.100.{number}")

    with database.read() as connection:
        rows = connection.execute(select(sign_in_places)).all()
    assert {row.network for row in rows} == {f"198.51.100.{number}" for number in range(5, MOST_PLACES + 5)}
    assert {row.user_id for row in rows} == {user.id}


def test_this_machine_is_no_place(people: People, make_user: MakeUser, database: Database) -> None:
    make_user("alice")
    verify(people, "alice", address="127.0.0.1")

    with database.read() as connection:
        assert not connection.execute(select(sign_in_places)).all()


def test_password_is_hashed_anew_at_sign_in_when_the_parameters_have_grown(
    people: People, make_user: MakeUser, database: Database
) -> None:
    user = make_user("alice")
    weaker = "$argon2id$v=19$m=12288,t=3,p=1$"
    old = _hash_of(people, IdentitySettings(password_passes=3, password_memory_kib=12_288))
    assert old.startswith(weaker)
    with database.write() as connection:
        connection.execute(update(users_table).where(users_table.c.id == user.id).values(password_hash=old))

    assert isinstance(verify(people, "alice"), User)
    assert _stored(database, "alice").startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert isinstance(verify(people, "alice"), User)


def test_asvs_6_3_8_unknown_users_cost_what_users_cost_whose_hashes_are_old(
    people: People, make_user: MakeUser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("alice")
    old = _hash_of(people, IdentitySettings(password_passes=3, password_memory_kib=12_288))
    with database.write() as connection:
        connection.execute(update(users_table).where(users_table.c.name == "alice").values(password_hash=old))
    compared: list[str] = []
    real = people._pool.is_right

    def is_right(stored: str, password: bytes) -> Any:
        compared.append(stored)
        return real(stored, password)

    monkeypatch.setattr(people._pool, "is_right", is_right)
    verify(people, "alice", "wrong password")
    verify(people, "nobody", "wrong password")

    assert len({hash_.rsplit("$", 2)[0] for hash_ in compared}) == 1, compared


def test_wrong_password_changes_no_hash(people: People, make_user: MakeUser, database: Database) -> None:
    user = make_user("alice")
    old = _hash_of(people, IdentitySettings(password_passes=3, password_memory_kib=12_288))
    with database.write() as connection:
        connection.execute(update(users_table).where(users_table.c.id == user.id).values(password_hash=old))

    verify(people, "alice", "wrong password")

    assert _stored(database, "alice") == old


def test_one_account_cannot_fill_the_queue_of_all(people: People, make_user: MakeUser) -> None:
    make_user("alice")
    device = people.devices.issue("alice")

    async def at_once() -> list[User | Refusal]:
        attempts = (people.passwords.verify("alice", PASSWORD, HOME, device=device) for _ in range(30))
        return list(await asyncio.gather(*attempts))

    found = asyncio.run(at_once())

    assert sum(isinstance(each, User) for each in found) >= MOST_CHECKS_PER_ACCOUNT
    assert Refusal("throttled", 1) in found


def test_strangers_whose_passwords_are_being_checked_do_not_make_the_owner_wait(
    people: People, make_user: MakeUser
) -> None:
    make_user("alice")
    device, gate = people.devices.issue("alice"), threading.Event()

    async def at_once() -> tuple[Any, ...]:
        held = [people._pool._run(gate.wait) for _ in range(IdentitySettings().password_threads)]
        guesses = [
            asyncio.ensure_future(people.passwords.verify("alice", "wrong", f"203.0.113.{n}"))
            for n in range(8)
        ]
        await asyncio.sleep(0.2)
        owner = asyncio.ensure_future(people.passwords.verify("alice", PASSWORD, HOME, device=device))
        await asyncio.sleep(0.2)
        gate.set()
        for each in held:
            each.result(timeout=10)
        return await owner, await asyncio.gather(*guesses)

    owner, guesses = asyncio.run(at_once())

    assert isinstance(owner, User)
    assert guesses.count(Refusal("throttled", 1)) == 8 - MOST_CHECKS_PER_ACCOUNT


def test_event_loop_goes_on_while_passwords_are_checked(people: People, make_user: MakeUser) -> None:
    make_user("alice")

    async def measure() -> int:
        turns, work = 0, asyncio.ensure_future(people.passwords.verify("alice", PASSWORD, HOME))
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(measure()) > 20


def test_refusals_of_the_throttle_do_not_flood_the_audit_trail(
    people: People, make_user: MakeUser, trail: KeptTrail
) -> None:
    make_user("alice")
    trail.deeds.clear()

    for _ in range(200):
        verify(people, "alice", "wrong")

    assert [deed.result for deed in trail.deeds].count("failed") == 5
    assert [deed.result for deed in trail.deeds].count("refused") == 1


def test_attempt_that_cannot_be_recorded_fails(people: People, make_user: MakeUser, trail: KeptTrail) -> None:
    make_user("alice")
    trail.is_full = True

    with pytest.raises(OSError, match="no space"):
        verify(people, "alice", "wrong")


def _hash_of(people: People, settings: IdentitySettings) -> str:
    from lingpai.identity.passwords.hashing import HashingPool

    pool = HashingPool(settings)
    try:
        return pool.hash(PASSWORD.encode()).result()
    finally:
        pool.close()


def _stored(database: Database, name: str) -> str:
    with database.read() as connection:
        query = select(users_table.c.password_hash).where(users_table.c.name == name)
        return str(connection.execute(query).scalar_one())
