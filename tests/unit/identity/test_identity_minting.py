"""How many credentials a member may make."""

from contextlib import suppress
from threading import Thread

import pytest
from identity_fakes import Clock

from lingpai.errors import LingpaiError
from lingpai.identity.minting import Minting
from lingpai.principal import Principal

BOB = Principal("usr_bob", "bob", "member")
EVE = Principal("usr_eve", "eve", "member")
ADMIN = Principal("usr_admin", "admin", "admin")


def made(minting: Minting, caller: Principal, tries: int = 500) -> int:
    """How many of so many tries are let through."""
    count = 0
    for _ in range(tries):
        with suppress(LingpaiError):
            minting.begin(caller)
            count += 1
    return count


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_owasp_api6_a_member_makes_an_hours_worth_at_once_and_then_one_at_a_time(clock: Clock) -> None:
    minting = Minting(60, clock=lambda: clock.now)

    assert made(minting, BOB) == 60
    clock.now += 59
    assert made(minting, BOB) == 0
    clock.now += 1
    assert made(minting, BOB) == 1
    clock.now += 36_000
    assert made(minting, BOB) == 60


def test_the_wait_that_is_told_is_enough_and_a_second_less_is_not(clock: Clock) -> None:
    minting = Minting(10, clock=lambda: clock.now)
    assert made(minting, BOB) == 10

    with pytest.raises(LingpaiError) as caught:
        minting.begin(BOB)

    assert caught.value.code == "rate_limit_exceeded"
    wait = int(caught.value.headers["retry-after"])
    assert wait == 360
    clock.now += wait - 1
    assert made(minting, BOB, 1) == 0
    clock.now += 1
    assert made(minting, BOB, 1) == 1


def test_members_do_not_count_for_each_other_and_administrators_not_at_all(clock: Clock) -> None:
    minting = Minting(3, clock=lambda: clock.now)

    assert (made(minting, BOB), made(minting, EVE), made(minting, ADMIN)) == (3, 3, 500)


def test_without_a_number_there_is_no_bound() -> None:
    assert made(Minting(), BOB) == 500


def test_many_at_the_same_time_get_no_more(clock: Clock) -> None:
    minting = Minting(50, clock=lambda: clock.now)
    counts: list[int] = []
    threads = [Thread(target=lambda: counts.append(made(minting, BOB, 100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(counts) == 50


def test_memory_is_bounded_by_who_has_made_something_lately(clock: Clock) -> None:
    minting = Minting(3, clock=lambda: clock.now)
    for number in range(10_000):
        minting.begin(Principal(f"usr_{number}", "x", "member"))
    clock.now += 3600

    minting.begin(BOB)

    assert len(minting._full_at) == 1
