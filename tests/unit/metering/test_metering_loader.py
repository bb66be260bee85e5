"""Loading: records, sums and position together or not at all."""

import sqlite3
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from lingpai.metering import loader as loader_module
from lingpai.metering.loader import SqliteLoader
from lingpai.metering.segments import START
from lingpai.metering.tables import usage_charges, usage_damage, usage_marks, usage_records, usage_rollups


@pytest.fixture
def loader(database, database_path):
    loader = SqliteLoader(database_path)
    yield loader
    loader.close()


@dataclass
class Tables:
    database: object

    def rows(self, table):
        with self.database.read() as connection:
            return [row._asdict() for row in connection.execute(select(table))]


@pytest.fixture
def tables(database):
    return Tables(database)


def test_nothing_loaded_is_the_start(loader):
    """The reader then begins with the oldest segment."""
    assert loader.position() == START


def test_a_record_arrives_with_every_field(loader, make_record, tables):
    """The order of the record's fields is the order of the columns."""
    loader.load([make_record()], (7, 100))

    row = tables.rows(usage_records)[0]
    record = make_record()
    assert row == {"id": 1} | {name: getattr(record, name) for name in record.__struct_fields__}
    assert loader.position() == (7, 100)


def test_a_call_without_a_key_has_an_empty_key(loader, make_record, tables):
    """So that roll-ups can have the key in their primary key."""
    loader.load([make_record(key_id=None)], (7, 100))

    assert tables.rows(usage_records)[0]["key_id"] == tables.rows(usage_rollups)[0]["key_id"] == ""


def test_sums_are_kept_per_quarter_of_an_hour_key_user_model_and_task(loader, make_record, tables):
    """Within a batch and over several batches."""
    at = 1_800_000_000.0
    loader.load([make_record(started_at=at), make_record(started_at=at + 899.99)], (1, 1))
    loader.load([make_record(started_at=at + 1), make_record(started_at=at + 900)], (1, 2))
    loader.load(
        [make_record(model="other"), make_record(user_id="usr_bob"), make_record(task="embedding")], (1, 3)
    )

    rows = tables.rows(usage_rollups)
    assert sorted(row["requests"] for row in rows) == [1, 1, 1, 1, 3]
    three = next(row for row in rows if row["requests"] == 3)
    assert three["bucket_start"] == int(at)
    assert (three["prompt_tokens"], three["completion_tokens"]) == (30, 60)
    assert (three["cached_tokens"], three["reasoning_tokens"], three["charged"]) == (3, 6, 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1, 0, 0)),
        ({"status": 400}, (1, 1, 0)),
        ({"status": 200, "end_reason": "upstream_error"}, (1, 1, 0)),
        ({"status": 200, "end_reason": "timeout"}, (1, 1, 0)),
        ({"status": 200, "end_reason": "client_gone"}, (1, 0, 0)),
        ({"status": 429, "end_reason": "refused"}, (0, 0, 1)),
    ],
)
def test_what_counts_as_request_error_and_refusal(loader, make_record, tables, changes, expected):
    """A refused call was not admitted, so it is neither a request nor an error."""
    loader.load([make_record(**changes)], (1, 1))

    row = tables.rows(usage_rollups)[0]
    assert (row["requests"], row["errors"], row["refused"]) == expected


def test_money_is_summed_for_each_currency(loader, make_record, tables):
    """And costs nothing where the model has no price."""
    loader.load([make_record(), make_record(charged_cost=500)], (1, 1))
    loader.load(
        [make_record(currency="CNY", cost=7, charged_cost=0), make_record(currency="", cost=0)], (1, 2)
    )

    row = tables.rows(usage_rollups)[0]
    assert (row["cost_usd"], row["charged_usd"], row["cost_cny"], row["charged_cny"]) == (3000, 2000, 7, 0)
    assert row["charged_tokens"] == 120


def test_a_price_gone_wrong_stops_counting_before_it_overflows(loader, make_record, tables):
    """SQLite would go on in floating point, and Python's whole numbers would not fit."""
    most = make_record(cost=10**18, charged_cost=10**18)
    for number in range(3):
        loader.load([most] * 20, (1, number + 1))

    assert tables.rows(usage_rollups)[0]["cost_usd"] == 10**18


def test_projects_are_summed_apart(loader, make_record, tables):
    """One key's calls may be in two, when it was moved."""
    loader.load([make_record(), make_record(project_id="prj_other")], (1, 1))

    assert [row["project_id"] for row in tables.rows(usage_rollups)] == ["prj_ada", "prj_other"]


def test_clients_are_summed_apart(loader, make_record, tables):
    """Calls with tokens have no key: without the client they would all be one."""
    loader.load([make_record(key_id=None, client_id=name) for name in ("app", "app", "other", "")], (1, 1))

    sums = {row["client_id"]: row["requests"] for row in tables.rows(usage_rollups)}
    assert sums == {"": 1, "app": 2, "other": 1}


def test_what_limits_were_charged_is_kept_apart_from_keys_and_tasks(loader, make_record, tables):
    """A row for each user, project and model together, for each model and for each client."""
    records = [make_record(key_id=f"key-{n}", task=f"task-{n}") for n in range(5)]
    loader.load([*records, make_record(client_id="app", currency="CNY")], (1, 1))
    loader.load([make_record(user_id="usr_bob", project_id="", model="", client_id="app")], (1, 2))

    rows = [tuple(row.values())[1:] for row in tables.rows(usage_charges)]
    assert rows == [
        ("client", "app", "", "", 2, 60, 1500, 1500),
        ("model", "lingpai/eliza", "", "", 6, 180, 7500, 1500),
        ("user", "usr_ada", "prj_ada", "lingpai/eliza", 6, 180, 7500, 1500),
        ("user", "usr_bob", "", "", 1, 30, 1500, 0),
    ]


def test_what_was_charged_nothing_leaves_no_charges(loader, make_record, tables):
    """A program that is refused all the time makes no rows."""
    nothing = {"charged": 0, "charged_tokens": 0, "charged_cost": 0}
    loader.load([make_record(end_reason="refused", client_id="app", **nothing)], (1, 1))

    assert tables.rows(usage_charges) == []


def test_marks_say_where_the_records_of_a_bucket_are(loader, make_record, tables):
    """Also of those that arrive late: long after their bucket was reported."""
    at = 1_800_000_000.0

    def load(*offsets):
        loader.load([make_record(started_at=at + offset) for offset in offsets], (1, 1))

    load(0, 1, 900, 899, 901)
    load(1800)
    load(5, 1801)

    marks = {row["bucket_start"] - at: (row["first_id"], row["last_id"]) for row in tables.rows(usage_marks)}
    assert marks == {0: (1, 7), 900: (3, 5), 1800: (6, 8)}


def test_a_late_record_is_added_to_its_own_bucket(loader, make_record, tables):
    """A stream that ran for hours counts where it was admitted, as the limits count it."""
    at = 1_800_000_000.0
    loader.load([make_record(started_at=at), make_record(started_at=at + 90_000)], (1, 1))
    loader.load([make_record(started_at=at + 1, duration_ms=9e7)], (1, 2))

    assert {row["bucket_start"]: row["requests"] for row in tables.rows(usage_rollups)} == {
        at: 2,
        at + 90_000: 1,
    }


def test_damage_is_noted_with_the_position(loader, tables):
    """A load without records is possible: there may have been nothing but damage."""
    loader.load([], (7, 100), damage=[(1.5, 7, "segment 7 is damaged")])

    assert loader.position() == (7, 100)
    (row,) = tables.rows(usage_damage)
    assert (row["found_at"], row["segment"], row["description"]) == (1.5, 7, "segment 7 is damaged")


def test_a_failed_load_leaves_nothing_and_can_be_repeated(loader, make_record, tables, monkeypatch):
    """Records, sums and position are one transaction."""
    loader.load([make_record()], (1, 1))
    monkeypatch.setattr(loader_module, "_MOVE_POSITION", "INSERT INTO journal_position VALUES (2, ?, ?)")
    with pytest.raises(sqlite3.IntegrityError):
        loader.load([make_record()], (1, 2))
    monkeypatch.undo()

    assert len(tables.rows(usage_records)) == 1
    assert tables.rows(usage_rollups)[0]["requests"] == 1
    assert loader.position() == (1, 1)
    loader.load([make_record()], (1, 2), durable=True)
    assert tables.rows(usage_rollups)[0]["requests"] == 2


def test_the_largest_counts_add_up(loader, make_record, tables):
    """No sum overflows in the database."""
    most = make_record(prompt_tokens=10**12)
    loader.load([most] * 1000, (1, 1))

    assert tables.rows(usage_rollups)[0]["prompt_tokens"] == 10**15


def test_a_missing_database_is_an_error_and_is_not_made(tmp_path):
    """A new file would have no tables and would hide a wrong path."""
    loader = SqliteLoader(tmp_path / "missing.db")

    with pytest.raises(sqlite3.OperationalError):
        loader.position()

    assert not (tmp_path / "missing.db").exists()
