"""How long an attempt to sign in has to wait, and whom it does not make wait."""

import pytest

from lingpai.identity.passwords.reports import MOST_PER_ROUND, ThrottleReports
from lingpai.identity.passwords.throttle import (
    ADDRESS_FORGETS_S,
    BURST_S,
    MOST_COUNTS,
    FailureCounts,
    FailureRate,
    Origin,
    Throttle,
    Wait,
)
from lingpai.identity.settings import IdentitySettings

HOUR = 3600.0


def throttle(**changes: float) -> Throttle:
    return Throttle(IdentitySettings(**changes))  # type: ignore[arg-type]


def fail(throttle: Throttle, origin: Origin, times: int, now: float = 0.0) -> None:
    """So many failures, each as soon as it is let through. Fails when one never is."""
    for _ in range(times):
        wait = throttle.begin(origin, now)
        if wait is not None:
            now += wait.seconds
            assert throttle.begin(origin, now) is None


def stranger(account: str = "alice", network: str | None = "203.0.113.7") -> Origin:
    return Origin(account, network)


def test_first_failures_of_an_account_are_free_and_then_the_wait_doubles() -> None:
    guard, now, waits = throttle(sign_in_failures_per_address=1000), 0.0, []

    for number in range(12):
        wait = guard.begin(stranger(network=f"203.0.113.{number}"), now)
        if wait is not None:
            waits.append(wait.seconds)
            now += wait.seconds
            assert guard.begin(stranger(network=f"203.0.113.{number}"), now) is None

    assert waits == [1, 2, 4, 8, 16, 32, 64]


def test_wait_has_a_ceiling_so_that_nobody_is_locked_out() -> None:
    guard = throttle(sign_in_max_wait_s=60.0)

    fail(guard, stranger(), 40)

    wait = guard.begin(stranger(), 40 * 60.0)
    assert wait is None or wait.seconds <= 60


def test_owasp_api2_about_a_hundred_guesses_a_day_are_left() -> None:
    """NIST SP 800-63B, section 3.2.2: no more than a hundred consecutive failures."""
    guard, now, guesses = throttle(), 0.0, 0
    day = 86_400.0

    while now < day:
        wait = guard.begin(stranger(network=f"2001:db8:0:{guesses:x}::/64"), now)
        if wait is None:
            guesses += 1
        else:
            now += wait.seconds

    assert guesses <= 120


def test_attempts_at_the_same_time_are_counted_before_they_are_checked() -> None:
    guard = throttle()

    allowed = [guard.begin(stranger(network=f"203.0.113.{n}"), 0.0) for n in range(50)].count(None)

    assert allowed == 5


def test_success_resets_the_account_but_not_the_address() -> None:
    """Else an attacker would sign in to an account of their own after every few guesses."""
    guard = throttle(sign_in_failures_per_address=6)
    fail(guard, stranger("victim"), 4)

    own = stranger("attacker")
    assert guard.begin(own, 0.0) is None
    guard.succeeded(own, 0.0)

    assert guard.begin(stranger("bob"), 0.0) is None
    assert guard.begin(stranger("carol"), 0.0) is None
    wait = guard.begin(stranger("dave"), 0.0)
    assert wait is not None
    assert wait.because == "address"


def test_success_of_an_account_gives_it_all_free_attempts_back() -> None:
    guard = throttle()
    fail(guard, stranger(), 4)

    assert guard.begin(stranger(), 0.0) is None
    guard.succeeded(stranger(), 0.0)

    fail(guard, stranger(), 5)


def test_one_address_guessing_many_accounts_is_slowed_down() -> None:
    guard = throttle()

    refused = [guard.begin(stranger(f"user{n}"), 0.0) for n in range(100)]

    assert refused.count(None) == 20
    assert all(wait is None or wait.because == "address" for wait in refused)


def test_count_of_an_address_falls_by_itself() -> None:
    guard = throttle()
    for number in range(20):
        guard.begin(stranger(f"user{number}"), 0.0)

    later = 10 * ADDRESS_FORGETS_S

    assert sum(guard.begin(stranger(f"new{n}"), later) is None for n in range(50)) == 10


def test_this_machine_is_no_address_because_everybody_may_be_behind_its_proxy() -> None:
    guard = throttle()

    assert all(guard.begin(stranger(f"user{n}", network=None), 0.0) is None for n in range(100))


def test_many_addresses_and_accounts_together_meet_the_rate_of_the_server() -> None:
    guard = throttle(sign_in_failures_per_s=2.0)

    waits = [guard.begin(stranger(f"user{n}", f"203.0.113.{n}"), 0.0) for n in range(100)]

    assert waits.count(None) == 2 * BURST_S
    assert {wait.because for wait in waits if wait} == {"server"}


def test_known_device_is_let_through_while_others_hammer_the_account_the_address_and_the_server() -> None:
    """Incident class 13: an attacker must not stop the owner from signing in where they did before."""
    guard = throttle(sign_in_failures_per_s=1.0)
    for number in range(200):
        guard.begin(stranger("alice", "203.0.113.7"), 0.0)
        guard.begin(stranger(f"user{number}", f"198.51.100.{number}"), 0.0)
    owner = Origin("alice", "203.0.113.7", "device d1")

    assert guard.begin(stranger("alice", "203.0.113.7"), 0.0) is not None
    assert guard.begin(owner, 0.0) is None


def test_stolen_device_cookie_gives_no_more_guesses_than_a_stranger_has() -> None:
    guard = throttle()
    thief = Origin("alice", None, "device d1")

    assert [guard.begin(thief, 0.0) for _ in range(20)].count(None) == 5


def test_success_on_a_known_device_does_not_help_who_guesses_elsewhere() -> None:
    guard = throttle()
    fail(guard, stranger(), 8)
    owner = Origin("alice", "198.51.100.1", "device d1")

    assert guard.begin(owner, HOUR / 4) is None
    guard.succeeded(owner, HOUR / 4)

    fail(guard, stranger(network="203.0.113.8"), 1, HOUR / 4)
    wait = guard.begin(stranger(network="203.0.113.9"), HOUR / 4 + 1)
    assert wait is not None
    assert wait.seconds > 8


def test_attempt_that_was_never_made_is_taken_back() -> None:
    guard = throttle()

    for _ in range(50):
        assert guard.begin(stranger(), 0.0) is None
        guard.abandoned(stranger(), 0.0)


def test_new_password_ends_the_wait() -> None:
    guard = throttle()
    fail(guard, stranger(network=None), 9)

    guard.forget_account("alice")

    assert guard.begin(stranger(network=None), 0.0) is None


def test_memory_is_bounded_and_holds_no_names() -> None:
    counts = FailureCounts(free=5, longest_s=900, forgets_s=3600)

    for number in range(MOST_COUNTS + 5000):
        counts.begin(f"password typed as a name {number}", 0.0)

    assert len(counts) == MOST_COUNTS
    assert all(len(index) == 16 and b"password" not in index for index in counts._counts)


def test_failure_rate_recovers_with_time() -> None:
    rate = FailureRate(10.0)
    for _ in range(300):
        rate.begin(0.0)

    assert rate.wait_s(0.0) == pytest.approx(0.1)
    assert rate.wait_s(0.1) == 0.0


def test_refusals_are_recorded_once_a_minute_for_an_account_and_counted() -> None:
    reports, wait = ThrottleReports(), Wait(5, "account")

    said = [reports.reason("alice", wait, now) for now in (0.0, 1.0, 2.0, 59.0, 61.0)]

    assert said == [
        "too many failures for this account",
        None,
        None,
        None,
        "too many failures for this account; 3 more refusals since the last record",
    ]


def test_flood_of_many_accounts_makes_few_records() -> None:
    reports = ThrottleReports()

    said = [reports.reason(f"user{number}", Wait(1, "server"), 0.0) for number in range(10_000)]

    assert sum(reason is not None for reason in said) == MOST_PER_ROUND
    assert len(reports._told) == MOST_PER_ROUND
