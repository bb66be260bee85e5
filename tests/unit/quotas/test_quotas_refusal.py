"""What a caller is told who is turned away."""

import pytest
from quota_doubles import NOON_ISH, admitted_at_once, fresh_meters

from lingpai.quotas.amounts import Amounts
from lingpai.quotas.refusal import Refusal, about, local_time


def refusal_by(limit: str, now: float = NOON_ISH) -> Refusal:
    [meter] = fresh_meters(limit, label="key `ci`", now=now)
    admitted_at_once(meter, now)
    return Refusal.of([meter], now)


def test_a_spent_quota_names_limit_use_reset_and_what_to_do():
    refusal = refusal_by("2000/day@Asia/Shanghai", now=NOON_ISH + 5 * 3600)

    assert refusal.message == (
        "The limit of 2000 requests per day for key `ci` is used up (2000 of 2000). "
        "It resets at 2026-11-21 00:00 (Asia/Shanghai, UTC+08:00), in about 3 hours. "
        "Wait for the reset, or ask the operator for a higher limit; `GET /v1/key` shows what is left."
    )


def test_a_rate_that_is_too_fast_says_how_fast_it_refills():
    assert refusal_by("600/10m").message == (
        "The limit of 600 requests per 10 minutes for key `ci` is used up (600 of 600). "
        "It refills by 1 request every 1 second; there is room again in 1 second. "
        "Send requests more slowly and retry after the time in `Retry-After`, or ask the operator for a higher limit."
    )
    assert "refills by 100 requests per second" in refusal_by("100/1s").message
    assert "refills by 1 request every 1.5 seconds" in refusal_by("40/1m").message
    assert (
        "refills by 1 request every about 2 hours; there is room again in about 2 hours"
        in refusal_by("10/1d").message
    )


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("1/minute", "rate_limit_exceeded"),
        ("1/1s", "rate_limit_exceeded"),
        ("1/1d", "rate_limit_exceeded"),
        ("1/hour", "insufficient_quota"),
        ("1/day", "insufficient_quota"),
        ("1/week", "insufficient_quota"),
        ("1/month", "insufficient_quota"),
    ],
)
def test_minutes_and_durations_are_rates_and_longer_windows_quotas(limit, code):
    assert refusal_by(limit).code == code


def test_a_short_wait_is_given_in_seconds_and_milliseconds_rounded_up():
    refusal = refusal_by("3/1s")

    assert refusal.retry_after == pytest.approx(1 / 3, abs=1e-5)
    assert refusal.headers(NOON_ISH) == b"retry-after: 1\r\nretry-after-ms: 334\r\n"


def test_a_spent_quota_tells_sdks_not_to_retry():
    refusal = refusal_by("5/day")

    assert refusal.headers(NOON_ISH) == (
        b"retry-after: 57600\r\nretry-after-ms: 57600000\r\nx-should-retry: false\r\n"
    )


def test_a_rate_with_a_wait_longer_than_sdks_obey_tells_them_not_to_retry():
    assert b"x-should-retry: false" in refusal_by("10/1d").headers(NOON_ISH)


def test_ratelimit_s5_retry_after_is_never_earlier_than_the_reset():
    refusal = refusal_by("5/minute", now=NOON_ISH + 0.25)

    assert refusal.retry_after == 59.75
    assert refusal.headers(NOON_ISH + 0.25).startswith(b"retry-after: 60\r\nretry-after-ms: 59750\r\n")


def test_headers_written_later_count_from_then():
    refusal = refusal_by("5/minute")

    assert refusal.headers(NOON_ISH + 58.5).startswith(b"retry-after: 2\r\n")
    assert refusal.headers(NOON_ISH + 61).startswith(b"retry-after: 0\r\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (0.4, "1 second"),
        (11.2, "12 seconds"),
        (150, "about 2 minutes"),
        (3600, "about 60 minutes"),
        (10_500, "about 3 hours"),
        (90_000, "about 25 hours"),
        (400_000, "about 5 days"),
    ],
)
def test_durations_are_told_to_people_roughly(seconds, words):
    assert about(seconds) == words


def test_instants_are_told_on_the_limits_wall_clock_with_its_offset():
    assert local_time(NOON_ISH, "Asia/Kathmandu") == "2026-11-20 13:45 (Asia/Kathmandu, UTC+05:45)"
    assert local_time(NOON_ISH + 7, "UTC") == "2026-11-20 08:00:07 (UTC)"
    assert local_time(NOON_ISH, "America/St_Johns") == "2026-11-20 04:30 (America/St_Johns, UTC-03:30)"


def refused_tokens(limit: str, *, settled: int, reserved: int, wanted: int) -> Refusal:
    """By a limit on tokens of which so much is used for good, and so much by a call under way."""
    [meter] = fresh_meters(limit, label="key `ci`")
    meter.reserve(NOON_ISH, settled)
    meter.settle(NOON_ISH, settled, settled, NOON_ISH)
    meter.reserve(NOON_ISH, reserved)
    return Refusal.of([meter], NOON_ISH, Amounts(tokens=wanted))


def test_a_spent_token_quota_names_what_is_used_reserved_left_and_wanted():
    refusal = refused_tokens("100000 tokens/day", settled=98_000, reserved=1500, wanted=2600)

    assert refusal.message == (
        "The limit of 100000 tokens per day for key `ci` has no room for this call: 98000 used, 1500 reserved by calls "
        "under way, 500 left, and it needs at least 2600 tokens. "
        "It resets at 2026-11-21 00:00 (UTC), in about 16 hours. "
        "Wait for the reset, or ask the operator for a higher limit; `GET /v1/key` shows what is left."
    )
    assert (refusal.code, refusal.used, refusal.reserved, refusal.wanted) == (
        "insufficient_quota",
        99_500,
        1500,
        2600,
    )


def test_what_only_calls_under_way_hold_is_free_soon_and_no_spent_quota():
    refusal = refused_tokens("100000 tokens/day", settled=10_000, reserved=89_000, wanted=2600)

    assert (refusal.code, refusal.retry_after, refusal.is_held) == ("rate_limit_exceeded", 1.0, True)
    assert refusal.headers(NOON_ISH) == b"retry-after: 1\r\nretry-after-ms: 1000\r\n"
    assert "The calls under way give back what they do not use when they end. Retry" in refusal.message


def test_a_call_that_wants_more_than_the_limit_ever_gives_is_told_to_want_less():
    refusal = refused_tokens("1000 tokens/minute", settled=0, reserved=0, wanted=1200)

    assert refusal.message == (
        "The limit of 1000 tokens per minute for key `ci` can never admit this call: it needs at least 1200 tokens. "
        "Lower `max_tokens` or shorten the input, or ask the operator for a higher limit; retrying does not help."
    )
    assert refusal.code == "rate_limit_exceeded"
    assert refusal.headers(NOON_ISH).endswith(b"x-should-retry: false\r\n")


def test_a_rate_of_tokens_says_how_fast_it_refills_and_when_there_is_enough():
    refusal = refused_tokens("1000 tokens/10s", settled=1000, reserved=0, wanted=500)

    assert refusal.retry_after == 5
    assert "It refills by 1000 tokens per 10 seconds; there is room again in 5 seconds." in refusal.message


def test_money_is_told_in_decimals():
    [meter] = fresh_meters("0.5 USD/month", label="project `web`")
    meter.reserve(NOON_ISH, 500_000_000)
    meter.settle(NOON_ISH, 500_000_000, 499_999_999, NOON_ISH)

    message = Refusal.of([meter], NOON_ISH, Amounts(usd=1_250_000)).message

    assert message.startswith(
        "The limit of 0.5 USD per month for project `web` has no room for this call: 0.499999999 used, "
        "0 reserved by calls under way, 0.000000001 left, and it needs at least 0.00125 USD."
    )


def test_too_many_calls_at_once_are_told_how_many_are_under_way():
    refusal = refusal_by("2 concurrent")

    assert refusal.message == (
        "The limit of 2 concurrent requests for key `ci` is reached: 2 calls are under way. "
        "There is room again as soon as one of them ends. Send fewer calls at the same time and retry after the time in "
        "`Retry-After`, or ask the operator for a higher limit."
    )
    assert refusal.headers(NOON_ISH) == b"retry-after: 1\r\nretry-after-ms: 1000\r\n"


def test_a_spent_quota_is_told_before_one_that_is_held_and_an_impossible_wish_before_both():
    held, spent, small = (
        fresh_meters(limit)[0] for limit in ("1000 tokens/month", "1000 tokens/hour", "10 tokens/minute")
    )
    held.reserve(NOON_ISH, 1000)
    spent.reserve(NOON_ISH, 1000)
    spent.settle(NOON_ISH, 1000, 1000, NOON_ISH)

    first = Refusal.of([held, spent], NOON_ISH, Amounts(tokens=20))
    second = Refusal.of([held, spent, small], NOON_ISH, Amounts(tokens=20))

    assert (first.meter, first.refusing) == (spent, (held, spent))
    assert second.meter is small
