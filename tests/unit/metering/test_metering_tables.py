"""The tables, their migration, and what of the product the ingester loads."""

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from lingpai.metering.records import UsageRecord
from lingpai.metering.tables import usage_records
from lingpai.storage.metadata import metadata

_OURS = {"usage_records", "usage_rollups", "journal_position"}


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


def test_the_ingester_loads_no_server_code():
    """It should start in no time and stay small."""
    code = "import sys, lingpai.metering.ingester; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"sqlalchemy", "fastapi", "pydantic", "asyncio", "logging", "dataclasses"} & set(loaded)
