"""Zones, durations and dates as people write them."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from lingpai.errors import LingpaiError
from lingpai.web.periods import day_of, hour_of, iso_utc, parse_moment, parse_zone

NOW = datetime.fromisoformat("2026-11-20T08:07:00+00:00").timestamp()
SHANGHAI = ZoneInfo("Asia/Shanghai")


def moment(text, zone=SHANGHAI) -> str:
    return iso_utc(parse_moment(text, now=NOW, zone=zone, param="since"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-20T07:37:00Z"),
        ("12h", "2026-11-19T20:07:00Z"),
        ("7d", "2026-11-13T08:07:00Z"),
        ("2W", "2026-11-06T08:07:00Z"),
        (" 1 d ", "2026-11-19T08:07:00Z"),
        ("999999d", "1970-01-01T00:00:00Z"),
        ("2026-11-20", "2026-11-19T16:00:00Z"),
        ("2026-11-20T15:00", "2026-11-20T07:00:00Z"),
        ("2026-11-20T15:00Z", "2026-11-20T15:00:00Z"),
        ("2026-11-20T15:00+01:00", "2026-11-20T14:00:00Z"),
        ("0001-01-01", "1970-01-01T00:00:00Z"),
    ],
)
def test_a_moment(text, expected):
    """Durations count back from now; dates and times without an offset are in the zone."""
    assert moment(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "7x", "-7d", "yesterday", "2026-13-01", "9" * 60 + "d", "20/11/2026", "\0"]
)
def test_anything_else_is_refused_with_an_example(text):
    """The parameter is named."""
    with pytest.raises(LingpaiError, match="2026-11-20") as caught:
        moment(text)

    assert (caught.value.code, caught.value.param) == ("invalid_request", "since")


def test_a_day_that_begins_after_midnight_begins_there():
    """On this day Beirut's clocks went from 23:59:59 to 01:00."""
    assert moment("2024-03-31", ZoneInfo("Asia/Beirut")) == "2024-03-30T22:00:00Z"


def test_a_repeated_time_is_the_earlier():
    """02:30 came twice in Berlin that night."""
    assert moment("2026-10-25T02:30", ZoneInfo("Europe/Berlin")) == "2026-10-25T00:30:00Z"


@pytest.mark.parametrize("name", ["Asia/Shanghai", "UTC", "Asia/Kathmandu"])
def test_known_zones(name):
    """Any name of the IANA database."""
    assert parse_zone(name).key == name


@pytest.mark.parametrize(
    "name", ["Asia/Shangai", "Asia", "", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "\ud800"]
)
def test_unknown_zones_are_refused(name):
    """Also names that are no files, or not the right ones."""
    with pytest.raises(LingpaiError) as caught:
        parse_zone(name)

    assert (caught.value.code, caught.value.param) == ("invalid_request", "tz")


def test_a_mistyped_zone_is_answered_with_the_nearest():
    """The message says what to write."""
    with pytest.raises(LingpaiError, match=r"Did you mean .*`Asia/Shanghai`"):
        parse_zone("Asia/Shangai")


@pytest.mark.parametrize(
    ("zone", "utc", "day", "hour"),
    [
        ("UTC", "2026-11-20T15:45", "2026-11-20", "2026-11-20T15:00+00:00"),
        ("Asia/Shanghai", "2026-11-20T16:00", "2026-11-21", "2026-11-21T00:00+08:00"),
        ("Asia/Kolkata", "2026-11-20T18:15", "2026-11-20", "2026-11-20T23:00+05:30"),
        ("Asia/Kolkata", "2026-11-20T18:30", "2026-11-21", "2026-11-21T00:00+05:30"),
        ("Asia/Kathmandu", "2026-11-20T18:00", "2026-11-20", "2026-11-20T23:00+05:45"),
        ("Asia/Kathmandu", "2026-11-20T18:15", "2026-11-21", "2026-11-21T00:00+05:45"),
        ("America/New_York", "2026-11-01T05:30", "2026-11-01", "2026-11-01T01:00-04:00"),
        ("America/New_York", "2026-11-01T06:30", "2026-11-01", "2026-11-01T01:00-05:00"),
        ("Australia/Lord_Howe", "2026-04-04T14:45", "2026-04-05", "2026-04-05T01:00+11:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00", "2026-04-05", "2026-04-05T01:00+10:30"),
    ],
)
def test_days_and_hours_of_a_bucket(zone, utc, day, hour):
    """In the zone, with the offset in force at that moment."""
    bucket = int(datetime.fromisoformat(f"{utc}+00:00").timestamp())

    assert day_of(bucket, ZoneInfo(zone)) == day
    assert hour_of(bucket, ZoneInfo(zone)) == hour
