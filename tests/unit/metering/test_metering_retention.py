"""Old records go, a little at a time; what reports and limits know stays."""

import asyncio

import pytest
from sqlalchemy import insert, select

from lingpai.metering.rebuild import Rebuild
from lingpai.metering.retention import Retention
from lingpai.metering.service import UsageQuestion, UsageReport
from lingpai.metering.settings import MeteringSettings
from lingpai.metering.store import SqlUsageStore
from lingpai.metering.tables import usage_marks, usage_records, usage_retention
from lingpai.storage.trail import NoTrail

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
            found = connection.scalars(select(usage_records.c.request_id).order_by("id"))
            return [request_id for request_id in found if request_id]

    return request_ids


def days_ago(*days):
    return [{"request_id": f"{day}", "started_at": NOW - day * DAY} for day in days]


@pytest.fixture
def use_all_week(load):
    """Makes a call without an id on each of the last seven days: only then is a clock believed."""

    def use(now=NOW):
        load(*({"request_id": "", "key_id": "week", "started_at": now - day * DAY} for day in range(7)))

    return use


def test_what_is_older_goes_and_the_sums_stay(expire, kept, load, database, use_all_week):
    """What arrived behind younger records goes when those do."""
    load(*days_ago(200, 101, 99, 100, 150, 1, 0))
    use_all_week()

    assert expire() == 2

    assert kept() == ["99", "100", "150", "1", "0"]
    report = UsageReport(SqlUsageStore(database), clock=lambda: NOW + 1)
    assert report.answer(UsageQuestion(since="300d")).rows[0].requests == 14
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


def test_many_go_in_small_batches(expire, kept, load, use_all_week):
    """More than one; the next run has nothing to do."""
    load(*days_ago(*[200] * 2500, 0))
    use_all_week()

    assert expire() == 2500
    assert expire() == 0
    assert kept() == ["0"]


def test_a_late_record_goes_when_its_neighbours_do(expire, kept, load, use_all_week):
    """It arrived after records that are kept."""
    load(*days_ago(50))
    load(*days_ago(200, 0))
    use_all_week()

    expire()
    assert kept() == ["50", "200", "0"]

    load(*({"request_id": "later", "started_at": NOW + 60 * DAY},))
    use_all_week(now=NOW + 60 * DAY)
    expire(now=NOW + 60 * DAY)

    assert kept() == ["0", "later"]


def test_a_record_with_the_time_of_a_wrong_clock_stops_nothing(expire, kept, load, use_all_week):
    """It stays until that time has passed."""
    load(*days_ago(-3000, 200, 150, 0))
    use_all_week()

    expire()

    assert kept() == ["-3000", "0"]


def test_a_clock_that_is_years_ahead_deletes_nothing_even_when_calls_were_recorded_under_it(
    expire, kept, load, use_all_week
):
    """Six days of calls are not enough to believe it."""
    load(*days_ago(90, 1))
    use_all_week()
    ahead = NOW + 10_000 * DAY
    for day in range(6):
        load({"request_id": f"ahead-{day}", "started_at": ahead + day * DAY})

        assert expire(now=ahead + day * DAY) == 0

    assert kept() == ["90", "1", *(f"ahead-{day}" for day in range(6))]


def test_few_days_of_calls_delete_nothing(expire, kept, load):
    """A new server cannot know what time it is, and has little that could be too old."""
    load(*days_ago(200, 5, 4, 3, 2, 1))

    assert expire() == 0
    assert kept()[0] == "200"


def test_a_server_that_nobody_used_for_long_believes_its_clock_after_a_week_of_calls(expire, kept, load):
    """Until then it keeps more than it has to."""
    load(*days_ago(*range(310, 300, -1)))
    load(*days_ago(*range(6, 0, -1)))
    assert expire() == 0

    load(*days_ago(0))

    assert expire() == 10
    assert kept() == ["6", "5", "4", "3", "2", "1", "0"]


def test_a_line_in_the_future_comes_back_and_nothing_new_is_deleted(expire, kept, load, database):
    """A clock that was wrong for a week has deleted; from when it is right again, records are kept and known whole."""
    with database.write() as connection:
        connection.execute(insert(usage_retention).values(id=1, kept_since=int(NOW) + 2000 * DAY))
    load(*days_ago(1, 0))

    assert expire() == 0

    assert kept() == ["1", "0"]
    with database.read() as connection:
        assert connection.scalar(select(usage_retention.c.kept_since)) == NOW + 900


def test_a_clock_that_goes_back_brings_nothing_back(expire, database, load, use_all_week):
    """What was said to be deleted stays said."""
    load(*days_ago(200, 0))
    use_all_week()
    expire()
    expire(now=NOW - 50 * DAY)

    with database.read() as connection:
        assert connection.scalar(select(usage_retention.c.kept_since)) == NOW - 100 * DAY


def test_a_clock_that_starts_in_1970_does_not_make_deleted_time_complete(
    expire, database, load, use_all_week
):
    """A rebuild would take the sums of deleted records for wrong."""
    load(*days_ago(200, 150))
    use_all_week()
    expire()

    expire(now=100.0)

    with database.read() as connection:
        assert connection.scalar(select(usage_retention.c.kept_since)) >= NOW - 150 * DAY + 900
    assert Rebuild(database, trail=NoTrail()).run().repaired == ()


def test_limits_keep_the_history_they_need(expire, load, database, use_all_week):
    """Call by call where there are records, and a quarter of an hour at a time where there are none."""
    load(*days_ago(200, 150, 99, 0))
    use_all_week()
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
