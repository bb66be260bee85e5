"""What quotas ask of the usage tables."""

import pytest
from sqlalchemy import event

from lingpai.metering.loader import SqliteLoader
from lingpai.metering.store import SqlUsageStore, UsageFilter

AT = 1_800_000_000.0  # the start of a bucket
KEY = ("key", "4fK3aaaaaaaa")
USER = ("user", "usr_ada")


@pytest.fixture
def store(database):
    return SqlUsageStore(database)


@pytest.fixture
def load(database, database_path, make_record):
    """Loads one record for each dictionary of changes."""
    loader = SqliteLoader(database_path)
    yield lambda *changes: loader.load([make_record(**each) for each in changes], (1, 1))
    loader.close()


@pytest.mark.parametrize("subject", [KEY, USER])
@pytest.mark.parametrize("since", [AT, AT + 0.5, AT + 60, AT + 899.5, AT + 900, AT + 901.25, AT + 5000])
def test_requests_are_counted_from_the_very_moment(store, load, subject, since):
    """Within a bucket as exactly as at its start."""
    times = [AT - 1, AT, AT + 0.5, AT + 60, AT + 899.5, AT + 900, AT + 901, AT + 901.25, AT + 1800, AT + 5000]
    load(*({"started_at": time} for time in times))

    assert store.requests_since(subject, since) == sum(time >= since for time in times)
    assert store.request_times_since(subject, since) == [time for time in times if time >= since]


def test_only_charged_requests_count(store, load):
    """A refused call and one that was given back took nothing."""
    load({"charged": 0}, {"charged": 0, "end_reason": "refused"}, {"charged": 1}, {"charged": 2})

    for subject in (KEY, USER):
        assert store.requests_since(subject, AT) == store.requests_since(subject, AT - 1) == 3
        assert store.request_times_since(subject, AT) == [AT] * 3


def test_a_key_counts_alone_and_a_user_with_all_keys(store, load):
    """Also with calls that had no key; nobody counts another's."""
    load(
        {"started_at": AT},
        {"started_at": AT + 2, "key_id": "second"},
        {"started_at": AT + 1, "key_id": None},
        {"started_at": AT, "key_id": None, "user_id": "usr_bob"},
        {"started_at": AT, "key_id": "bobs", "user_id": "usr_bob"},
    )

    for since in (AT, AT - 60):
        assert store.requests_since(KEY, since) == 1
        assert store.requests_since(USER, since) == 3
    assert store.request_times_since(USER, AT) == [AT, AT + 1, AT + 2]
    assert store.request_times_since(KEY, AT) == [AT]


def test_an_unknown_subject_used_nothing(store):
    """A new key starts with a full quota."""
    assert store.requests_since(("key", "new"), AT) == 0
    assert store.request_times_since(("user", "new"), AT) == []


@pytest.mark.parametrize("subject", [KEY, USER])
def test_no_question_walks_through_a_whole_table(store, database, subject):
    """They are asked when a key is first used, and the tables hold everything ever used."""
    plans = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def explain(_, cursor, statement, parameters, *rest):
        if statement.startswith("SELECT"):
            plans.extend(
                row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            )

    store.requests_since(subject, AT + 1)
    store.request_times_since(subject, AT + 1)
    list(store.totals(UsageFilter(since=0, until=900), ["model"]))

    assert [plan for plan in plans if plan.startswith("SCAN") and "usage" in plan] == []
    assert any("ix_usage_records_charged_calls_of_key" in plan for plan in plans)


def test_totals_of_nothing_are_no_row(store):
    """With and without groups."""
    for by in ([], ["model"]):
        assert list(store.totals(UsageFilter(since=0, until=900), by)) == []
