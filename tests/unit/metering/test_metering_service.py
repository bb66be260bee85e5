"""The usage report: groups, periods, any zone."""

from datetime import datetime

import pytest

from lingpai.errors import LingpaiError
from lingpai.metering.service import UsageQuestion, UsageReport, parse_groups
from lingpai.metering.store import SqlUsageStore


def utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


NOW = utc("2026-11-20T08:07:00")


@pytest.fixture
def load(load):
    """Loads one record of now for each dictionary of changes."""
    return lambda *changes: load(*({"started_at": NOW} | each for each in changes))


@pytest.fixture
def ask(database):
    report = UsageReport(SqlUsageStore(database), clock=lambda: NOW)
    return lambda **question: report.answer(UsageQuestion(**question))


def requests(report) -> dict[str, int]:
    return {"/".join(row.group): row.requests for row in report.rows}


def test_without_groups_there_is_one_row_also_of_nothing(ask, load):
    """A total is a number, not an empty list."""
    assert requests(ask()) == {"": 0}

    load({}, {"status": 500}, {"end_reason": "refused", "status": 429})

    row = ask().rows[0]
    assert (row.requests, row.errors, row.refused) == (2, 1, 1)
    assert (row.prompt_tokens, row.completion_tokens) == (30, 60)


def test_groups_are_the_columns_asked_for_the_busiest_first(ask, load):
    """In the order in which they were written."""
    load({"model": "a"}, {"model": "b"}, {"model": "b", "key_id": None}, {"model": "b", "key_id": None})

    assert list(requests(ask(by="model")).items()) == [("b", 3), ("a", 1)]
    assert list(requests(ask(by="key, model")).items()) == [
        ("/b", 2),
        ("4fK3aaaaaaaa/a", 1),
        ("4fK3aaaaaaaa/b", 1),
    ]
    assert requests(ask(by="user,task")) == {"usr_ada/chat": 4}


def test_filters_narrow_the_report(ask, load):
    """By key, user and model."""
    load({}, {"key_id": "other"}, {"user_id": "usr_bob"}, {"model": "other"})

    assert requests(ask(key_id="other")) == {"": 1}
    assert requests(ask(user_id="usr_ada")) == {"": 3}
    assert requests(ask(user_id="usr_ada", model="other", by="model")) == {"other": 1}


def test_a_duration_begins_with_its_bucket_and_the_report_says_so(ask, load):
    """Usage is known per 15 minutes: 7 hours before 08:07 is 01:07, counted from 01:00."""
    load({"started_at": utc("2026-11-20T01:00")}, {"started_at": utc("2026-11-20T00:59")})

    report = ask(since="7h")
    assert requests(report) == {"": 1}
    assert (report.since, report.until) == (utc("2026-11-20T01:00"), utc("2026-11-20T08:15"))


@pytest.mark.parametrize("seconds", [0.0, 0.4, 899.9])
def test_what_was_answered_at_this_moment_is_in_the_report(database, load, seconds):
    """Also in the first second of a quarter of an hour."""
    now = utc("2026-11-20T08:15:00") + seconds
    load({"started_at": now - 0.1 if seconds else now})
    report = UsageReport(SqlUsageStore(database), clock=lambda: now)

    assert requests(report.answer(UsageQuestion())) == {"": 1}


def test_dates_are_in_the_zone_and_until_is_excluded(ask, load):
    """The 19th in Shanghai is 16:00 to 16:00 UTC."""
    load(*({"started_at": utc(f"2026-11-{at}")} for at in ("18T15:59", "18T16:00", "19T15:59", "19T16:00")))

    assert requests(ask(since="2026-11-19", until="2026-11-20", tz="Asia/Shanghai")) == {"": 2}


def test_the_present_bucket_is_in_the_report(ask, load):
    """A call of this minute shows."""
    load({"started_at": NOW})

    assert requests(ask(since="1m")) == {"": 1}
    assert requests(ask(since="0m")) == {"": 1}


@pytest.mark.parametrize(
    ("tz", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-24T22:00", 25),
        ("Asia/Kolkata", "2026-10-24T18:30", 24),
        ("Asia/Kathmandu", "2026-10-24T18:15", 24),
        ("Australia/Lord_Howe", "2026-04-04T13:00", 24.5),
    ],
)
def test_a_day_is_the_zones_day(ask, load, tz, start, hours):
    """Longer and shorter ones on the days of clock changes; zones off by half and three quarters of an hour."""
    begin = utc(start)
    end = begin + hours * 3600
    load(*({"started_at": at} for at in (begin - 1, begin, end - 1, end)))

    days = requests(ask(since="2026-01-01", by="day", tz=tz))

    assert list(days.values()) == [1, 2, 1]


def test_every_hour_of_a_long_day_is_a_row(ask, load):
    """The repeated hour is there twice, in order."""
    begin = utc("2026-10-24T22:00")
    load(*({"started_at": begin + quarter * 900} for quarter in range(100)))

    rows = requests(ask(since="2026-10-25", until="2026-10-26", by="hour", tz="Europe/Berlin"))

    assert len(rows) == 25
    assert set(rows.values()) == {4}
    assert [hour for hour in rows if "T02" in hour] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


def test_day_and_model_together_are_in_the_order_of_time(ask, load):
    """Wherever the day stands in the list."""
    load(
        {"model": "a", "started_at": NOW - 86400},
        {"model": "b"},
        {"model": "b"},
        {"model": "a"},
    )

    assert list(requests(ask(by="model,day"))) == ["a/2026-11-19", "b/2026-11-20", "a/2026-11-20"]


@pytest.mark.parametrize(
    ("question", "param"),
    [
        ({"by": "keys"}, "by"),
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"since": "soon"}, "since"),
        ({"since": "2027-11-20"}, "since"),
        ({"until": "soon"}, "until"),
        ({"since": "2026-11-20", "until": "2026-11-19"}, "until"),
        ({"since": "2027-11-20", "until": "1d"}, "until"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(ask, question, param):
    """The parameter at fault is named."""
    with pytest.raises(LingpaiError) as caught:
        ask(**question)

    assert (caught.value.code, caught.value.param) == ("invalid_request", param)


def test_groups_are_read_leniently():
    """Blanks, capitals and repetitions do not matter."""
    assert parse_groups(" Key,model,,key ") == ("key", "model")
    assert parse_groups("") == ()
