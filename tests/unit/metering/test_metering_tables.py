"""The tables, their migration, and what of the product the ingester loads."""

import subprocess
import sys

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from lingpai.metering.records import UsageRecord
from lingpai.metering.store import SqlUsageStore
from lingpai.metering.tables import usage_marks, usage_records, usage_rollups
from lingpai.storage.database import Database
from lingpai.storage.metadata import metadata
from lingpai.storage.upgrade import alembic_config, upgrade

_OURS = {
    "usage_records",
    "usage_rollups",
    "usage_charges",
    "usage_marks",
    "usage_damage",
    "usage_retention",
    "journal_position",
}


def test_the_migration_makes_the_tables_that_the_code_describes(database):
    """Otherwise a statement works in one and not in the other."""

    def is_ours(name, kind, parents):
        return kind != "table" or name in _OURS

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_ours})
        differences = compare_metadata(context, metadata)

    assert [found for found in differences if found[1].name in _OURS] == []


def test_the_columns_are_the_fields_of_a_record(database):
    """The ingester passes a record's fields on in their order."""
    assert ("id", *UsageRecord.__struct_fields__) == tuple(usage_records.c.keys())


def test_what_an_older_release_recorded_stays_and_counts(tmp_path):
    """Rows of release 1 get the new columns; roll-ups keep their sums; marks know where the records are."""
    database = Database(f"sqlite:///{tmp_path}/lingpai.db")
    with database.write() as connection:
        upgrade(connection, "0003")
        for number, second in enumerate((1_800_000_001.5, 1_800_000_900.0, 1_800_000_002.0)):
            connection.execute(text(_OLD_RECORD), {"id": f"req_{number}", "at": second})
        connection.execute(text(_OLD_ROLLUP))

    database.migrate()

    with database.read() as connection:
        record = connection.execute(select(usage_records)).first()
        rollup = connection.execute(select(usage_rollups)).one()
        marks = connection.execute(select(usage_marks).order_by("bucket_start")).all()
    store = SqlUsageStore(database)
    assert (record.request_id, record.project_id, record.cost, record.currency) == ("req_0", "", 0, "")
    assert (rollup.project_id, rollup.requests, rollup.reasoning_tokens, rollup.charged_usd) == ("", 1, 8, 0)
    assert [tuple(mark) for mark in marks] == [(1_800_000_000, 1, 3), (1_800_000_900, 2, 2)]
    assert store.charges_since(("key", "k"), "requests", 0)[0] == (1_800_000_001.5, 1)
    for subject in (("user", "u"), ("model", "m"), ("user_model", "u m")):
        assert store.charged_since(subject, "requests", 1_800_000_000) == 4
    database.close()


_OLD_RECORD = """
INSERT INTO usage_records (request_id, key_id, user_id, model, backend, task, endpoint, started_at, duration_ms,
    prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, counted, status, end_reason, charged, retries,
    client_address)
VALUES (:id, 'k', 'u', 'm', 'b', 'chat', '/', :at, 1.0, 1, 1, 0, 0, 'reported', 200, 'complete', 1, 0, '::1')
"""
_OLD_ROLLUP = "INSERT INTO usage_rollups VALUES (1800000000, 'k', 'u', 'm', 'chat', 1, 2, 3, 4, 5, 6, 7, 8)"


def test_going_back_before_clients_adds_their_sums_up(database, load):
    """What was used stays, also in a release that does not tell clients apart."""
    load({"client_id": "app"}, {"client_id": "other"}, {"client_id": ""}, {"key_id": "k"})

    with database.write() as connection:
        command.downgrade(alembic_config(connection), "0007")
        rows = connection.execute(
            text("SELECT key_id, requests, prompt_tokens FROM usage_rollups ORDER BY requests")
        )

    assert [tuple(row) for row in rows] == [("k", 1, 10), ("4fK3aaaaaaaa", 3, 30)]


def test_the_ingester_loads_no_server_code():
    """It should start in no time and stay small."""
    code = "import sys, lingpai.metering.ingester; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"sqlalchemy", "fastapi", "pydantic", "asyncio", "logging", "dataclasses"} & set(loaded)
