"""The repair: whatever happened to the sums, they are those of the records again, while records keep coming."""

import asyncio
import random
import threading

import pytest
from sqlalchemy import delete, insert, select, text

from lingpai.metering import rebuild as rebuild_module
from lingpai.metering.loader import SqliteLoader
from lingpai.metering.rebuild import Rebuild
from lingpai.metering.retention import Retention
from lingpai.metering.tables import usage_charges, usage_marks, usage_rollups
from lingpai.storage.trail import NoTrail

AT = 1_800_000_000.0
DAY = 86_400


@pytest.fixture
def random_record(make_record):
    """Draws a call of any kind within six hours."""

    def draw(chance):
        return make_record(
            started_at=AT + chance.uniform(0, 21_600),
            key_id=chance.choice(["a", "b", None]),
            user_id=chance.choice(["u", "v"]),
            project_id=chance.choice(["p", ""]),
            model=chance.choice(["m", ""]),
            status=chance.choice([200, 400, 429, 500]),
            end_reason=chance.choice(["complete", "refused", "timeout", "upstream_error", "client_gone"]),
            charged=chance.randint(0, 2),
            prompt_tokens=chance.randint(0, 10**12),
            charged_tokens=chance.randint(0, 10**6),
            cost=chance.choice([0, 5, 10**18]),
            charged_cost=chance.choice([0, 3]),
            currency=chance.choice(["", "USD", "CNY"]),
            client_id=chance.choice(["", "app"]),
        )

    return draw


@pytest.fixture
def state(database):
    """Everything the ingester keeps beside the records."""

    def read():
        with database.read() as connection:
            rollups = connection.execute(select(usage_rollups)).all()
            marks = connection.execute(select(usage_marks).order_by("bucket_start")).all()
            return rollups, marks, connection.execute(select(usage_charges)).all()

    return read


def damage(database, *statements):
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_what_is_right_stays(database, database_path, random_record, state):
    """The loader's sums and those that are worked out here are the same, whatever the records."""
    chance = random.Random(7)
    loader = SqliteLoader(database_path)
    for number in range(20):
        loader.load([random_record(chance) for _ in range(30)], (1, number + 1))
    loader.close()
    before = state()

    report = Rebuild(database, trail=NoTrail()).run()

    assert (report.repaired, report.marks_repaired, report.buckets) == ((), 0, 24)
    assert state() == before


def test_wrong_missing_and_invented_sums_are_put_right_and_reported(database, load, state):
    """With what they were and what they are."""
    load(*({"started_at": AT + 900 * number, "key_id": key} for number in range(4) for key in "ab"))
    before = state()
    damage(
        database,
        f"UPDATE usage_rollups SET requests = 9, charged_usd = 1 WHERE bucket_start = {int(AT)} AND key_id = 'a'",
        f"DELETE FROM usage_rollups WHERE bucket_start = {int(AT) + 900}",
        "INSERT INTO usage_rollups VALUES (900, 'x', '', '', '', '', '', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        "DELETE FROM usage_marks WHERE first_id = 1",
        "UPDATE usage_marks SET first_id = 1 WHERE first_id = 5",
    )

    report = Rebuild(database, trail=NoTrail()).run()

    assert state() == before
    assert report.marks_repaired == 2
    invented, wrong, missing = report.repaired
    assert (invented.bucket_start, invented.before["requests"], invented.after["requests"]) == (900, 1, 0)
    assert (wrong.groups, wrong.before) == (1, {"requests": 10, "charged_usd": 1501})
    assert wrong.after == {"requests": 2, "charged_usd": 3000}
    assert (missing.groups, missing.after["charged"]) == (2, 2)
    assert Rebuild(database, trail=NoTrail()).run().repaired == ()


def test_only_what_is_asked_for_is_looked_at(database, load, state):
    """From a bucket on."""
    load({"started_at": AT}, {"started_at": AT + 900})
    damage(database, "UPDATE usage_rollups SET errors = 1")

    report = Rebuild(database, trail=NoTrail()).run(since=AT + 1000)

    assert [repair.bucket_start for repair in report.repaired] == [AT + 900]
    assert report.since == AT + 900


def test_sums_of_deleted_records_stay(database, load, state):
    """Of that time they are all there is; also when late records came after the others had gone."""
    load({"started_at": AT - 200 * DAY}, {"started_at": AT - 200 * DAY + 1})
    load(*({"started_at": AT - day * DAY} for day in range(7)))
    asyncio.run(Retention(database, 100, clock=lambda: AT, pause_s=0).expire())
    load({"started_at": AT - 200 * DAY + 2})

    report = Rebuild(database, trail=NoTrail()).run()

    assert report.repaired == ()
    assert report.since == AT - 100 * DAY
    assert [row.requests for row in state()[0]] == [3, *[1] * 7]


def test_charges_are_put_right_as_well(database, load, state):
    """Wrong, missing and invented ones, of every kind."""
    load({"client_id": "app"}, {"user_id": "usr_bob", "currency": "CNY"})
    before = state()
    damage(
        database,
        "UPDATE usage_charges SET charged = 9 WHERE kind = 'model'",
        "DELETE FROM usage_charges WHERE kind = 'client' OR id = 'usr_bob'",
        "INSERT INTO usage_charges VALUES (900, 'user', 'x', '', '', 1, 0, 0, 0)",
    )

    report = Rebuild(database, trail=NoTrail()).run()

    assert state() == before
    assert [repair.groups for repair in report.repaired] == [1, 3]


def test_a_bucket_is_not_worked_out_again_while_the_database_is_locked(database, load, state, monkeypatch):
    """Only what has arrived since it was read is read then; the ingester would have to wait."""
    load(*({"started_at": AT + n} for n in range(100)))
    before = state()
    damage(database, "UPDATE usage_rollups SET requests = 1", "DELETE FROM usage_charges")
    read = []
    summed = rebuild_module._summed

    def remember(connection, bucket, first, last):
        read.append((first, last))
        return summed(connection, bucket, first, last)

    monkeypatch.setattr(rebuild_module, "_summed", remember)
    monkeypatch.setattr(rebuild_module, "_STRETCH", 40)
    Rebuild(database, trail=NoTrail()).run()

    assert state() == before
    assert read == [(1, 40), (41, 80), (81, 100)]


def test_it_is_exact_while_records_keep_coming(database, database_path, random_record, state):
    """Late ones among them, in buckets that are being repaired."""
    chance = random.Random(11)
    first = SqliteLoader(database_path)
    first.load([random_record(chance) for _ in range(2000)], (1, 1))
    first.close()
    damage(
        database, "UPDATE usage_rollups SET requests = requests + 1, charged = 0", "DELETE FROM usage_marks"
    )
    has_ended = threading.Event()

    def keep_loading():
        loader = SqliteLoader(database_path)
        number = 2
        while not has_ended.is_set():
            loader.load([random_record(chance) for _ in range(20)], (1, number))
            number += 1
        loader.close()

    ingester = threading.Thread(target=keep_loading)
    ingester.start()
    report = Rebuild(database, trail=NoTrail()).run()
    has_ended.set()
    ingester.join()

    assert len(report.repaired) == 24
    again = Rebuild(database, trail=NoTrail()).run()
    assert (again.repaired, again.marks_repaired) == ((), 0)


def test_progress_is_told(database, load):
    """To the end."""
    load({"started_at": AT}, {"started_at": AT + 900})
    told = []

    Rebuild(database, trail=NoTrail(), on_progress=lambda done, of: told.append((done, of))).run()

    assert told == [(0, 2), (1, 2), (2, 2)]


def test_nothing_is_nothing_to_repair(database):
    """A new database."""
    with database.write() as connection:
        connection.execute(delete(usage_marks))
        connection.execute(insert(usage_marks).values(bucket_start=0, first_id=1, last_id=1))

    report = Rebuild(database, trail=NoTrail()).run()

    assert (report.buckets, report.repaired, report.marks_repaired) == (0, (), 1)
