"""What quotas ask of the usage tables."""

import re

import pytest
from sqlalchemy import delete, event, insert

from lingpai.metering.store import SqlUsageStore, UsageFilter
from lingpai.metering.tables import usage_records, usage_retention

AT = 1_800_000_000.0  # the start of a bucket
KEY = ("key", "4fK3aaaaaaaa")
USER = ("user", "usr_ada")


@pytest.fixture
def store(database):
    return SqlUsageStore(database)


SUBJECTS = [
    KEY,
    USER,
    ("project", "prj_ada"),
    ("model", "lingpai/eliza"),
    ("user_model", "usr_ada lingpai/eliza"),
    ("client", "app"),
]
UNITS = {"requests": 1, "tokens": 30, "USD": 1500}


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("since", [AT, AT + 0.5, AT + 60, AT + 899.5, AT + 900, AT + 901.25, AT + 5000])
def test_charges_are_counted_from_the_very_moment(store, load, subject, since):
    """Within a bucket as exactly as at its start, in every unit and for every subject."""
    times = [AT - 1, AT, AT + 0.5, AT + 60, AT + 899.5, AT + 900, AT + 901, AT + 901.25, AT + 1800, AT + 5000]
    load(*({"started_at": time, "client_id": "app", "duration_ms": 0.0} for time in times))

    for unit, amount in UNITS.items():
        assert store.charged_since(subject, unit, since) == amount * sum(time >= since for time in times)
        expected = [(time, amount) for time in times if time >= since]
        assert store.charges_since(subject, unit, since) == expected


def test_only_what_was_charged_counts(store, load):
    """A refused call and one that was given back took nothing; a call may have been charged less than it used."""
    nothing = {"charged": 0, "charged_tokens": 0, "charged_cost": 0}
    load(
        nothing,
        nothing | {"end_reason": "refused"},
        {},
        {"charged": 2, "charged_tokens": 5, "charged_cost": 7},
    )

    for subject in (KEY, USER):
        for since in (AT, AT - 1):
            charged = [store.charged_since(subject, unit, since) for unit in UNITS]
            assert charged == [3, 35, 1507]
        assert store.charges_since(subject, "requests", AT) == [(AT, 1), (AT, 2)]
        assert store.charges_since(subject, "tokens", AT) == [(AT + 0.0455, 30), (AT + 0.0455, 5)]


def test_currencies_are_counted_apart(store, load):
    """A limit in one knows nothing of the other."""
    load({}, {"currency": "CNY", "charged_cost": 9}, {"currency": "", "cost": 0, "charged_cost": 0})

    for since in (AT, AT - 1):
        assert store.charged_since(KEY, "USD", since) == 1500
        assert store.charged_since(KEY, "CNY", since) == 9
    assert store.charges_since(KEY, "CNY", AT) == [(AT + 0.0455, 9)]


def test_money_adds_up_beyond_64_bits(store, load):
    """A backend that lies about its tokens cannot make the sum fail."""
    load(*({"started_at": AT + 900 * number, "cost": 10**18, "charged_cost": 10**18} for number in range(30)))

    assert store.charged_since(KEY, "USD", AT) == 30 * 10**18
    row = next(iter(store.totals(UsageFilter(since=int(AT), until=int(AT) + 100_000), [])))
    assert (row.cost_usd_units, row.cost_usd) == (30 * 10**9, 0)


def test_a_key_counts_alone_and_others_with_all_their_keys(store, load):
    """Also with calls that had no key; nobody counts another's."""
    load(
        {"started_at": AT},
        {"started_at": AT + 2, "key_id": "second", "model": "other"},
        {"started_at": AT + 1, "key_id": None},
        {"started_at": AT, "key_id": None, "user_id": "usr_bob"},
        {"started_at": AT, "key_id": "bobs", "user_id": "usr_bob", "project_id": "prj_bob"},
    )

    for since in (AT, AT - 60):
        counts = [store.charged_since(subject, "requests", since) for subject in SUBJECTS]
        assert counts == [1, 3, 4, 4, 2, 0]
    assert store.charges_since(USER, "requests", AT) == [(AT, 1), (AT + 1, 1), (AT + 2, 1)]
    assert store.charges_since(KEY, "requests", AT) == [(AT, 1)]
    assert store.charges_since(SUBJECTS[4], "requests", AT) == [(AT, 1), (AT + 1, 1)]


def test_where_records_are_gone_the_charges_of_a_bucket_come_at_its_end(store, load, database):
    """Late rather than early: a limit made from them lets nothing through that it should not."""
    load(*({"started_at": AT + seconds, "client_id": "app"} for seconds in (1, 2, 901, 1801)))
    with database.write() as connection:
        connection.execute(insert(usage_retention).values(id=1, kept_since=int(AT) + 1800))
        connection.execute(delete(usage_records).where(usage_records.c.started_at < AT + 900))

    for subject in SUBJECTS:
        charges = store.charges_since(subject, "tokens", AT + 1.5)

        assert charges == [(AT + 900, 60), (AT + 1800, 30), (AT + 1801.0455, 30)]
        assert store.charges_since(subject, "tokens", AT + 1800) == [(AT + 1801.0455, 30)]
        assert store.charged_since(subject, "requests", AT) == 4
        assert store.charged_since(subject, "requests", AT + 1.5) == 4


def test_tokens_and_money_are_charged_when_a_call_has_ended(store, load):
    """What it used beyond its reservation was taken then; a rate that took it for older would let more through."""
    load({"started_at": AT, "duration_ms": 3599_000.0}, {"started_at": AT + 1, "duration_ms": 500.0})

    assert store.charges_since(KEY, "tokens", AT) == [(AT + 1.5, 30), (AT + 3599, 30)]
    assert store.charges_since(KEY, "USD", AT) == [(AT + 1.5, 1500), (AT + 3599, 1500)]
    assert store.charges_since(KEY, "requests", AT) == [(AT, 1), (AT + 1, 1)]


@pytest.mark.parametrize("subject", SUBJECTS[1:])
def test_a_question_costs_the_same_whatever_the_number_of_keys(store, load, database, subject):
    """The first call on a limited model waits for it, and a million keys may have called that model this month."""
    steps = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def count(_, cursor, *rest):
        cursor.connection.set_progress_handler(lambda: steps.append(1), 1)

    def cost():
        steps.clear()
        for unit in UNITS:
            store.charged_since(subject, unit, AT + 1)
        return len(steps)

    load({"client_id": "app"}, {"started_at": AT + 900, "client_id": "app"})
    with_one_key = cost()
    load(*({"started_at": AT + 901, "key_id": f"key-{n}", "client_id": "app"} for n in range(2000)))

    assert store.charged_since(subject, "requests", AT + 1) == 2001
    assert cost() <= with_one_key


def test_an_unknown_subject_used_nothing(store):
    """A new key starts with a full quota."""
    for kind in ("key", "client", "user", "project", "model"):
        assert store.charged_since((kind, "new"), "USD", AT) == 0
        assert store.charges_since((kind, "new"), "tokens", AT) == []


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_question_walks_through_a_whole_table(store, database, subject):
    """They are asked when a key is first used, and the tables hold everything ever used."""
    plans = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def explain(_, cursor, statement, parameters, *rest):
        if statement.startswith("SELECT"):
            plans.extend(
                row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            )

    for unit in UNITS:
        store.charged_since(subject, unit, AT + 1)
        store.charges_since(subject, unit, AT + 1)
    list(store.totals(UsageFilter(since=0, until=900), ["model"]))

    assert [plan for plan in plans if re.match("SCAN .*usage_(records|rollups)", plan)] == []
    if subject[0] != "client":  # whose records are looked for by the time's ids
        assert any("ix_usage_records_charged_calls_of_key" in plan for plan in plans)


def test_totals_of_nothing_are_no_row(store):
    """With and without groups."""
    for by in ([], ["model"]):
        assert list(store.totals(UsageFilter(since=0, until=900), by)) == []
