"""Response headers about limits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quota_doubles import NOON_ISH, USER, admitted_at_once, fresh_meters

from lingpai.quotas.grammar import MAX_AMOUNT
from lingpai.quotas.headers import rate_limit_headers, reset_text


def fields(block: bytes) -> dict[str, str]:
    assert block == b"" or block.endswith(b"\r\n")
    return dict(line.split(": ", 1) for line in block.decode("ascii").split("\r\n")[:-1])


def test_one_limit_gives_all_five_fields():
    meters = fresh_meters("2000/day@Asia/Shanghai")
    meters[0].take(NOON_ISH)

    assert fields(rate_limit_headers(meters, NOON_ISH)) == {
        "x-ratelimit-limit-requests": "2000",
        "x-ratelimit-remaining-requests": "1999",
        "x-ratelimit-reset-requests": "8h0m0s",
        "ratelimit-policy": '"key-day";q=2000;w=86400',
        "ratelimit": '"key-day";r=1999;t=28800',
    }


def test_openais_fields_are_about_the_limit_with_the_smallest_share_left():
    [of_key] = fresh_meters("10/day")
    [of_user] = fresh_meters("1000/hour", subject=USER)
    for _ in range(5):
        of_key.take(NOON_ISH)
    for _ in range(900):
        of_user.take(NOON_ISH)

    shown = fields(rate_limit_headers((of_key, of_user), NOON_ISH))

    assert shown["x-ratelimit-limit-requests"] == "1000"
    assert shown["x-ratelimit-remaining-requests"] == "100"
    assert shown["ratelimit-policy"] == '"key-day";q=10;w=86400, "user-hour";q=1000;w=3600'
    assert shown["ratelimit"] == '"key-day";r=5;t=57600, "user-hour";r=100;t=3600'


def test_a_rate_says_when_the_whole_amount_is_back_and_once_used_up_when_the_next_request_may_come():
    [meter] = fresh_meters("600/10m")
    untouched = fields(rate_limit_headers([meter], NOON_ISH))
    meter.room(NOON_ISH)
    meter.take(NOON_ISH)
    one_used = fields(rate_limit_headers([meter], NOON_ISH + 0.75))
    admitted_at_once(meter, NOON_ISH)
    spent = fields(rate_limit_headers([meter], NOON_ISH))

    assert (untouched["ratelimit"], untouched["x-ratelimit-reset-requests"]) == ('"key-10m";r=600;t=0', "0s")
    assert (one_used["ratelimit"], one_used["x-ratelimit-reset-requests"]) == ('"key-10m";r=599;t=1', "250ms")
    assert (spent["ratelimit"], spent["x-ratelimit-reset-requests"]) == ('"key-10m";r=0;t=1', "10m0s")


def test_openais_reset_is_about_the_whole_amount_even_when_the_next_request_is_long_in_coming():
    [meter] = fresh_meters("10/1d")
    admitted_at_once(meter, NOON_ISH)

    spent = fields(rate_limit_headers([meter], NOON_ISH))

    assert (spent["ratelimit"], spent["x-ratelimit-reset-requests"]) == ('"key-1d";r=0;t=8640', "24h0m0s")


def test_without_limits_there_are_no_headers():
    assert rate_limit_headers((), NOON_ISH) == b""


def test_after_the_window_has_ended_the_headers_are_about_the_next_one():
    meters = fresh_meters("5/hour")
    admitted_at_once(meters[0], NOON_ISH)

    shown = fields(rate_limit_headers(meters, NOON_ISH + 3600))

    assert shown["ratelimit"] == '"key-hour";r=5;t=3600'


def test_a_lowered_limit_never_shows_less_than_nothing():
    [meter] = fresh_meters("5/hour")
    admitted_at_once(meter, NOON_ISH)
    meter.change_limit(fresh_meters("3/hour")[0].limit, NOON_ISH)

    assert fields(rate_limit_headers([meter], NOON_ISH))["x-ratelimit-remaining-requests"] == "0"


def test_tokens_have_openais_fields_of_their_own_and_the_tightest_limit_of_each_unit_is_shown():
    meters = fresh_meters("10/day", "1000 tokens/day", "1000 tokens/minute")
    meters[0].take(NOON_ISH)
    meters[1].reserve(NOON_ISH, 400)
    meters[2].reserve(NOON_ISH, 700)

    shown = fields(rate_limit_headers(meters, NOON_ISH))

    assert shown == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "16h0m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "300",
        "x-ratelimit-reset-tokens": "1m0s",
        "ratelimit-policy": '"key-day";q=10;w=86400, "key-day-tokens";q=1000;w=86400;lingpai-unit="tokens", '
        '"key-minute-tokens";q=1000;w=60;lingpai-unit="tokens"',
        "ratelimit": '"key-day";r=9;t=57600, "key-day-tokens";r=600;t=57600, "key-minute-tokens";r=300;t=60',
    }


def test_money_is_counted_in_millionths_rounded_down_and_concurrent_calls_have_no_time():
    meters = fresh_meters("0.5 USD/day", "8 concurrent")
    meters[0].reserve(NOON_ISH, 1)
    meters[1].take(NOON_ISH)

    assert fields(rate_limit_headers(meters, NOON_ISH)) == {
        "ratelimit-policy": '"key-day-usd";q=500000;w=86400;lingpai-unit="0.000001 USD", '
        '"key-concurrent";q=8;qu="concurrent-requests"',
        "ratelimit": '"key-day-usd";r=499999;t=57600, "key-concurrent";r=7',
    }


@pytest.mark.parametrize("limit", [f"{MAX_AMOUNT}/day", f"{MAX_AMOUNT} tokens/1d", "999999999 USD/month"])
def test_rfc9651_s3_3_1_no_number_is_longer_than_structured_fields_allow(limit):
    shown = fields(rate_limit_headers(fresh_meters(limit), NOON_ISH))

    assert all(
        len(number) <= 15 for number in re.findall(r"\d+", shown["ratelimit"] + shown["ratelimit-policy"])
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"0s"),
        (-1, b"0s"),
        (0.0001, b"1ms"),
        (0.012, b"12ms"),
        (0.9991, b"1s"),
        (1, b"1s"),
        (5.2, b"6s"),
        (59.5, b"1m0s"),
        (360, b"6m0s"),
        (32_580, b"9h3m0s"),
        (2_678_400, b"744h0m0s"),
    ],
)
def test_openai_errors_resets_are_written_as_openai_writes_durations(seconds, text):
    assert reset_text(seconds) == text


_ITEM = re.compile(r'"[a-z0-9@/_+-]+";r=\d+;t=\d+')


@given(
    st.sampled_from(
        ["5/day@America/Argentina/Buenos_Aires", "5/minute", "3/1s", "7/1m", "999999999999999/366d"]
    ),
    st.integers(0, 8),
    st.floats(0, 200_000),
)
def test_remaining_and_reset_agree_with_the_meter_at_any_time(limit, requests, later):
    [meter] = fresh_meters(limit)
    for _ in range(requests):
        if meter.room(NOON_ISH):
            meter.take(NOON_ISH)
    now = NOON_ISH + later

    shown = fields(rate_limit_headers([meter], now))

    assert _ITEM.fullmatch(shown["ratelimit"])
    left, wait = map(int, re.findall(r"=(\d+)", shown["ratelimit"]))
    assert left == meter.remaining(now) == int(shown["x-ratelimit-remaining-requests"])
    until = (meter.resets_at(now) if left else meter.free_at(now)) - now
    assert until <= wait < until + 1
