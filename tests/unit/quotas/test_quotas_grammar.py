"""How limits are written."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lingpai.quotas.grammar import MAX_AMOUNT, Limit, canonical_limit, parse_limit
from lingpai.quotas.windows import CalendarWindow, Duration


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2000/day@Asia/Shanghai", "2000/day@Asia/Shanghai"),
        ("2000 requests/day", "2000/day"),
        ("2000 / Days @ asia/shanghai", "2000/day@Asia/Shanghai"),
        ("  1 REQUEST / minute ", "1/minute"),
        ("5/week@Europe/Berlin", "5/week@Europe/Berlin"),
        ("5/months@utc", "5/month"),
        ("5/hour@Etc/UTC", "5/hour"),
        ("10/1s", "10/1s"),
        ("600/10m", "600/10m"),
        ("600 requests / 600 S", "600/10m"),
        ("7/24h", "7/1d"),
        ("7/90m", "7/90m"),
        (f"{MAX_AMOUNT}/366d", f"{MAX_AMOUNT}/366d"),
        ("2000 tokens/day", "2000 tokens/day"),
        ("1 Token / 1m", "1 tokens/1m"),
        ("100k tokens/day", "100000 tokens/day"),
        ("1.5M tokens/day", "1500000 tokens/day"),
        ("5 USD/month@UTC", "5 USD/month"),
        ("5.00 usd / month @ asia/shanghai", "5 USD/month@Asia/Shanghai"),
        ("0.50 USD/1h", "0.5 USD/1h"),
        ("0.000000001 CNY/day", "0.000000001 CNY/day"),
        ("999999999 CNY/day", "999999999 CNY/day"),
        ("8 concurrent", "8 concurrent"),
        ("8 Concurrent Requests", "8 concurrent"),
        ("10/1s wait 5s", "10/1s wait 5s"),
        ("10/1s (wait: 60 s)", "10/1s wait 1m"),
        ("8 concurrent wait=30s", "8 concurrent wait 30s"),
        ("5/day@Asia/Shanghai(wait 90s)", "5/day@Asia/Shanghai wait 90s"),
        ("007/day@America/Argentina/Buenos_Aires", "7/day@America/Argentina/Buenos_Aires"),
    ],
)
def test_spellings_have_one_canonical_form(text, canonical):
    assert canonical_limit(text) == canonical
    assert canonical_limit(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "for example `2000/day@Asia/Shanghai`"),
        ("day", "for example"),
        ("2000", "for example"),
        ("2000/", "for example"),
        ("-5/day", "for example"),
        ("x" * 5000, "for example"),
        ("9" * 5000 + "/day", "for example"),
        ("0/day", "at least 1"),
        ("1.5/day", "whole number"),
        (f"{MAX_AMOUNT + 1}/day", "too large"),
        ("5/fortnight", "use minute, hour, day, week or month"),
        ("5/1w", "a duration such as"),
        ("5/1d2h", "a duration such as"),
        ("5/0s", "between 1s and 366d"),
        ("5/367d", "between 1s and 366d"),
        ("5/999999999d", "between 1s and 366d"),
        ("5/1s@Asia/Shanghai", "gives a time zone to a duration"),
        ("5/day@Asia/Shangai", "Did you mean `Asia/Shanghai`"),
        ("5/day@Asia", "There is no time zone `Asia`"),
        ("5/day@../../etc/passwd", "There is no time zone"),
        ("5/day@/etc/localtime", "There is no time zone"),
        ("5/day@right/UTC", "There is no time zone"),
        ("5/day@localtime", "There is no time zone"),
        ("5/day@UTC+8", "There is no time zone"),
        ("5 bananas/day", "limits count requests, tokens, USD or CNY"),
        ("1.5 tokens/day", "whole number"),
        ("1.0005k tokens/day", "whole number"),
        ("1.5 concurrent", "whole number"),
        ("1.2.3 USD/day", "at most 9 decimals"),
        ("1. USD/day", "at most 9 decimals"),
        ("0.0000000001 USD/day", "at most 9 decimals"),
        ("0 USD/day", "more than 0"),
        ("0 concurrent", "at least 1"),
        ("1000000000 CNY/month", "too large; the most is 999999999."),
        ("5 concurrent/day", "gives a window to concurrent requests"),
        ("10/1s wait 0s", "between 1s and 10m"),
        ("10/1s wait 11m", "between 1s and 10m"),
        ("10/1s (wait 5 bananas)", "between 1s and 10m"),
        ("10/1s (wait 5s", "for example"),
    ],
)
def test_a_bad_limit_is_refused_with_a_sentence_that_helps(text, hint):
    with pytest.raises(ValueError, match=r"\.$|\?$") as caught:
        parse_limit(text)

    assert hint in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_message_never_repeats_control_characters():
    with pytest.raises(ValueError, match="is not a limit") as caught:
        parse_limit("5\n2026-11-20 forged line of a log")

    assert "\n" not in str(caught.value)


def test_a_limit_says_what_it_is_in_words():
    assert parse_limit("2000/day@Asia/Shanghai").words == "2000 requests per day"
    assert parse_limit("1/1s").words == "1 request per second"
    assert parse_limit("600/10m").words == "600 requests per 10 minutes"
    assert parse_limit("1 token/1m").words == "1 token per minute"
    assert parse_limit("0.25 USD/day").words == "0.25 USD per day"
    assert parse_limit("8 concurrent wait 5s").words == "8 concurrent requests"


def test_money_is_a_whole_number_of_billionths_so_that_no_sum_is_rounded():
    assert parse_limit("0.1 USD/day") == Limit(100_000_000, CalendarWindow("day"), "USD")
    assert parse_limit("3 concurrent wait 5s") == Limit(3, None, "concurrent", 5)


def test_windows_are_shared_objects_so_that_many_keys_cost_little():
    assert parse_limit("7/day").window == CalendarWindow("day")
    assert parse_limit("7/2h").window == Duration(7200)
    assert parse_limit("7/day") is parse_limit("7/day")


_pieces = st.sampled_from(
    [
        "2000",
        "1",
        "0",
        "10",
        ".",
        "requests",
        "tokens",
        "/",
        "@",
        " ",
        "day",
        "s",
        "1s",
        "10m",
        "hour",
        "concurrent",
        "USD",
        "0.5",
        "k",
        " wait ",
        "(wait 5s)",
        "Asia/Shanghai",
        "UTC",
        "utc",
        "..",
        "Europe",
        "\n",
        "\x00",
        "٣",
        "²",
        "ſ",
        "day@",
    ]
)


@given(st.one_of(st.text(max_size=120), st.lists(_pieces, max_size=8).map("".join)))
@example("5/day@\0")
@example("5/day@\ud800")
@example("²/day")
@example("5/dayſ")
@example("5/day@" + "a/" * 40)
def test_no_text_raises_anything_but_value_error_and_what_is_accepted_round_trips(text):
    try:
        limit = parse_limit(text)
    except ValueError:
        return

    assert parse_limit(str(limit)) == limit
