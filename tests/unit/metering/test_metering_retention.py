"""Old records go, a little at a time; what reports and limits know stays."""

import asyncio

import pytest
from sqlalchemy import select

from lingpai.metering.retention import Retention
from lingpai.metering.service import UsageQuestion, UsageReport
from lingpai.metering.settings import MeteringSettings
from lingpai.metering.store import SqlUsageStore
from lingpai.metering.tables import usage_marks, usage_records, usage_retention

DAY = 86_400
NOW = 1_800_000_000.0  # the start of a bucket


@pytest.fixture
def expire(database):
    def run(days=100, now=NOW):
        return asyncio.run(Retention(database, days, clock=lambda: now, pause_s=0).expire())

    return run


@pytest.fixture
def kept(database):
    def request_ids():
        with database.read() as connection:
            return list(connection.scalars(select(usage_records.c.request_id).order_by("id")))

    return request_ids


def days_ago(*days):
    return [{"request_id": f"{day}", "started_at": NOW - day * DAY} for day in days]


def test_what_is_older_goes_and_the_sums_stay(expire, kept, load, database):
    """What arrived behind younger records goes when those do."""
    load(*days_ago(200, 101, 99, 100, 150, 1, 0))

    assert expire() == 2

    assert kept() == ["99", "100", "150", "1", "0"]
    report = UsageReport(SqlUsageStore(database), clock=lambda: NOW + 1)
    assert report.answer(UsageQuestion(since="300d")).rows[0].requests == 7
    with database.read() as connection:
        kept_since = connection.scalar(select(usage_retention.c.kept_since))
        marks = list(connection.scalars(select(usage_marks.c.bucket_start)))
    assert kept_since == NOW - 100 * DAY
    assert min(marks) == kept_since


def test_zero_keeps_everything(expire, kept, load):
    """For ever."""
    load(*days_ago(5000, 0))

    assert expire(days=0) == 0
    assert kept() == ["5000", "0"]


def test_many_go_in_small_batches(expire, kept, load):
    """More than one; the next run has nothing to do."""
    load(*days_ago(*[200] * 2500, 0))

    assert expire() == 2500
    assert expire() == 0
    assert kept() == ["0"]


def test_a_late_record_goes_when_its_neighbours_do(expire, kept, load):
    """It arrived after records that are kept."""
    load(*days_ago(50))
    load(*days_ago(200, 0))

    expire()
    assert kept() == ["50", "200", "0"]

    load(*({"request_id": "later", "started_at": NOW + 60 * DAY},))
    expire(now=NOW + 60 * DAY)

    assert kept() == ["0", "later"]


def test_a_record_with_the_time_of_a_wrong_clock_stops_nothing(expire, kept, load):
    """It stays until that time has passed."""
    load(*days_ago(-3000, 200, 150, 0))

    expire()

    assert kept() == ["-3000", "0"]


def test_a_clock_that_is_years_ahead_deletes_nothing_that_is_not_due(expire, kept, load):
    """The newest record says what time it can be."""
    load(*days_ago(90, 0))

    expire(now=NOW + 10_000 * DAY)

    assert kept() == ["90", "0"]


def test_a_clock_that_goes_back_brings_nothing_back(expire, database, load):
    """What was said to be deleted stays said."""
    load(*days_ago(200, 0))
    expire()
    expire(now=NOW - 50 * DAY)

    with database.read() as connection:
        assert connection.scalar(select(usage_retention.c.kept_since)) == NOW - 100 * DAY


def test_limits_keep_the_history_they_need(expire, load, database):
    """Call by call where there are records, and a quarter of an hour at a time where there are none."""
    load(*days_ago(200, 150, 99, 0))
    store = SqlUsageStore(database)
    since = NOW - 180 * DAY
    before = store.charged_since(("key", "4fK3aaaaaaaa"), "requests", since)

    expire()

    assert store.charged_since(("key", "4fK3aaaaaaaa"), "requests", since) == before == 3
    charges = store.charges_since(("key", "4fK3aaaaaaaa"), "requests", since)
    assert charges == [(NOW - 150 * DAY + 900, 1), (NOW - 99 * DAY, 1), (NOW, 1)]


@pytest.mark.parametrize("days", [1, 61])
def test_less_than_two_months_is_refused(days):
    """The setting is named."""
    with pytest.raises(ValueError, match=r"metering\.retention_days"):
        MeteringSettings(retention_days=days)

    assert MeteringSettings(retention_days=62).retention_days == 62
