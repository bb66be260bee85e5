"""Calendar windows in time zones."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lingpai.quotas.windows import CalendarWindow

# Half-hour and 45-minute offsets, changes at and across midnight, a skipped day, a half-hour change, a two-hour change.
ZONES = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Havana",
    "Antarctica/Troll",
    "Africa/Cairo",
    "Asia/Beirut",
    "Pacific/Apia",
    "Europe/London",
]
UNITS = ["minute", "hour", "day", "week", "month"]


def at(zone: str, *wall: int, fold: int = 0) -> float:
    return datetime(*wall, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[arg-type]


def bounds_in_words(unit: str, zone: str, now: float) -> tuple[str, str]:
    start, end = CalendarWindow(unit, zone).bounds(now)  # type: ignore[arg-type]
    return tuple(f"{datetime.fromtimestamp(edge, ZoneInfo(zone)):%m-%d %H:%M}" for edge in (start, end))


@pytest.mark.parametrize(
    ("unit", "zone", "wall", "expected"),
    [
        ("minute", "UTC", (2026, 11, 20, 8, 30, 59), ("11-20 08:30", "11-20 08:31")),
        ("hour", "Asia/Kolkata", (2026, 11, 20, 8, 30), ("11-20 08:00", "11-20 09:00")),
        ("hour", "Asia/Kathmandu", (2026, 11, 20, 8, 59), ("11-20 08:00", "11-20 09:00")),
        ("day", "Asia/Shanghai", (2026, 11, 20, 23, 59, 59), ("11-20 00:00", "11-21 00:00")),
        ("day", "Asia/Shanghai", (2026, 11, 21), ("11-21 00:00", "11-22 00:00")),
        ("week", "Asia/Shanghai", (2026, 11, 22, 23), ("11-16 00:00", "11-23 00:00")),
        ("week", "Asia/Shanghai", (2026, 11, 23), ("11-23 00:00", "11-30 00:00")),
        ("week", "UTC", (2027, 1, 1), ("12-28 00:00", "01-04 00:00")),
        ("month", "UTC", (2028, 2, 29, 12), ("02-01 00:00", "03-01 00:00")),
        ("month", "Pacific/Chatham", (2026, 12, 31, 23, 59), ("12-01 00:00", "01-01 00:00")),
    ],
)
def test_windows_are_aligned_on_the_wall_clock(unit, zone, wall, expected):
    assert bounds_in_words(unit, zone, at(zone, *wall)) == expected


@pytest.mark.parametrize(
    ("zone", "wall", "hours"),
    [
        ("America/New_York", (2026, 3, 8, 12), 23),
        ("America/New_York", (2026, 11, 1, 12), 25),
        ("Australia/Lord_Howe", (2026, 4, 5, 12), 24.5),
        ("Australia/Lord_Howe", (2026, 10, 4, 12), 23.5),
        ("Antarctica/Troll", (2026, 3, 29, 12), 22),
        ("Asia/Shanghai", (2026, 3, 8, 12), 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone, wall, hours):
    start, end = CalendarWindow("day", zone).bounds(at(zone, *wall))

    assert (end - start) / 3600 == hours


def test_a_day_whose_midnight_is_skipped_begins_when_the_clocks_change():
    """Cairo goes from 23:59:59 on the 23rd straight to 01:00 on the 24th of April 2026."""
    assert bounds_in_words("day", "Africa/Cairo", at("Africa/Cairo", 2026, 4, 24, 9)) == (
        "04-24 01:00",
        "04-25 00:00",
    )
    assert bounds_in_words("day", "Africa/Cairo", at("Africa/Cairo", 2026, 4, 23, 9)) == (
        "04-23 00:00",
        "04-24 01:00",
    )


def test_a_day_whose_midnight_lies_inside_the_skipped_time_begins_when_the_clocks_change():
    """Toronto went from 23:30 on the 30th straight to 00:30 on the 31st of March 1919."""
    change = at("America/Toronto", 1919, 3, 31, 0, 30)

    assert CalendarWindow("day", "America/Toronto").bounds(change)[0] == change
    assert CalendarWindow("day", "America/Toronto").bounds(change - 1)[1] == change


def test_a_day_that_never_was_has_no_window():
    """Samoa skipped the 30th of December 2011."""
    assert bounds_in_words("day", "Pacific/Apia", at("Pacific/Apia", 2011, 12, 29, 9)) == (
        "12-29 00:00",
        "12-31 00:00",
    )
    assert bounds_in_words("day", "Pacific/Apia", at("Pacific/Apia", 2011, 12, 31, 9)) == (
        "12-31 00:00",
        "01-01 00:00",
    )


def test_an_evening_shown_twice_belongs_to_the_day_that_had_begun():
    """In St. John's clocks went from 00:01 on the 7th of November 2010 back to 23:01 on the 6th."""
    first_midnight = at("America/St_Johns", 2010, 11, 7)
    shown_again = at("America/St_Johns", 2010, 11, 6, 23, 30, fold=1)

    assert shown_again > first_midnight
    assert CalendarWindow("day", "America/St_Johns").bounds(shown_again)[0] == first_midnight


def test_an_hour_shown_twice_is_two_windows():
    window = CalendarWindow("hour", "America/New_York")

    first = window.bounds(at("America/New_York", 2026, 11, 1, 1, 30))
    second = window.bounds(at("America/New_York", 2026, 11, 1, 1, 30, fold=1))

    assert first[1] == second[0]
    assert [end - start for start, end in (first, second)] == [3600, 3600]


def test_a_change_of_the_clocks_inside_an_hour_ends_it():
    """On Lord Howe Island clocks go from 02:00 back to 01:30."""
    change = at("Australia/Lord_Howe", 2026, 4, 5, 1, 30, fold=1)
    window = CalendarWindow("hour", "Australia/Lord_Howe")

    assert window.bounds(change - 1) == (change - 3600, change)
    assert window.bounds(change) == (change, change + 1800)


_instants = st.integers(
    int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(UNITS), st.sampled_from(ZONES), _instants, st.floats(0, 0.999))
@example("hour", "Australia/Lord_Howe", int(at("Australia/Lord_Howe", 2026, 4, 5, 1, 45, fold=1)), 0.0)
@example("day", "America/St_Johns", int(at("America/St_Johns", 2010, 11, 6, 23, 30, fold=1)), 0.0)
@example("hour", "America/St_Johns", int(at("America/St_Johns", 2010, 11, 7)), 0.5)
@example("hour", "Antarctica/Troll", int(at("Antarctica/Troll", 2026, 3, 29, 3, 30)), 0.0)
@example("day", "Pacific/Apia", int(at("Pacific/Apia", 2011, 12, 31)), 0.0)
def test_windows_cover_all_time_and_never_overlap(unit, zone, second, fraction):
    window = CalendarWindow(unit, zone)

    start, end = window.bounds(second + fraction)

    assert start <= second + fraction < end
    assert window.bounds(start) == window.bounds(end - 0.001) == (start, end)
    assert window.bounds(end)[0] == end
    assert window.bounds(start - 0.001)[1] == start


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), st.integers(2000, 2036), st.integers(1, 366))
def test_days_agree_with_reading_the_wall_clock_minute_by_minute(zone, year, day_of_year):
    """The slow model: a day begins at the first minute whose date is later than any date shown before."""
    noon = at("UTC", year, 1, 1, 12) + (day_of_year - 1) * 86_400
    start, end = CalendarWindow("day", zone).bounds(noon)

    dates = [
        datetime.fromtimestamp(minute, ZoneInfo(zone)).date() for minute in range(start - 60, end + 60, 60)
    ]

    assert max(dates[1:-1]) == dates[1] > dates[0]
    assert dates[-1] > dates[1]
