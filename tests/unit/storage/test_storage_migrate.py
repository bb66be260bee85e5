"""Migrations lead from nothing to today's tables, once, and without Alembic when there is nothing to do."""

import importlib
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from lingpai.audit.tables import TRIGGERS
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.metadata import metadata
from lingpai.storage.migrate import NewerDatabaseError, current_revision, newest_revision
from lingpai.storage.upgrade import alembic_config

DOMAINS = (
    "audit",
    "catalog",
    "events",
    "identity",
    "identity.oauth",
    "identity.sessions",
    "identity.signing",
    "metering",
    "quotas",
    "secrets",
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/lingpai.db")
    yield database
    database.close()


def import_all_tables() -> None:
    for domain in DOMAINS:
        importlib.import_module(f"lingpai.{domain}.tables")


def rules_of(connection: Connection) -> dict[str, dict[str, Any]]:
    """What compare_metadata does not look at: CHECK constraints, predicates of indexes, names of keys."""
    inspector = inspect(connection)
    return {
        table: {
            "checks": {(check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)},
            "indexes": {(index["name"], predicate_of(index)) for index in inspector.get_indexes(table)},
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": sorted(inspector.get_foreign_keys(table), key=lambda each: str(each["name"])),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def predicate_of(index: Any) -> str:
    return str(index.get("dialect_options", {}).get("sqlite_where"))


def test_migrations_lead_to_the_tables_that_the_code_describes(database: Database) -> None:
    import_all_tables()

    database.migrate()

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_lead_to_the_constraints_that_the_code_describes(
    database: Database, tmp_path: Path
) -> None:
    import_all_tables()
    described = Database(f"sqlite:///{tmp_path}/described.db")
    with described.write() as connection:
        metadata.create_all(connection)
        expected = rules_of(connection)
    described.close()

    database.migrate()

    with database.read() as connection:
        assert rules_of(connection) == expected


def test_migrations_lead_to_the_triggers_that_the_code_describes(database: Database, tmp_path: Path) -> None:
    import_all_tables()
    described = Database(f"sqlite:///{tmp_path}/described.db")
    with described.write() as connection:
        metadata.create_all(connection)
        expected = triggers_of(connection)
    described.close()

    database.migrate()

    with database.read() as connection:
        assert triggers_of(connection) == expected
    assert {name for name, _ in expected} == set(TRIGGERS)


def triggers_of(connection: Connection) -> set[tuple[str, str]]:
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    return {(row.name, row.sql) for row in rows}


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    with database.read() as connection:
        before = connection.execute(text("SELECT * FROM sqlite_master")).all()

    database.migrate()

    with database.read() as connection:
        assert connection.execute(text("SELECT * FROM sqlite_master")).all() == before
        assert current_revision(connection) == newest_revision()


def test_database_at_the_newest_revision_is_opened_without_alembic(database: Database) -> None:
    database.migrate()
    code = (
        "import sys; from lingpai.storage.database import Database; "
        f"Database('sqlite:///{database.path}').migrate(); sys.exit('alembic' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_empty_database_gets_the_described_tables_without_alembic(tmp_path: Path) -> None:
    """The same tables as revision by revision (the tests above compare those), and a later upgrade goes on from there."""
    code = (
        "import sys; from lingpai.domains import metadata; from lingpai.storage.database import Database; "
        f"Database('sqlite:///{tmp_path}/new.db').migrate(metadata); sys.exit('alembic' in sys.modules)"
    )

    outcome = subprocess.run([sys.executable, "-c", code], check=False)

    import_all_tables()
    made = Database(f"sqlite:///{tmp_path}/new.db")
    with made.read() as connection:
        assert current_revision(connection) == newest_revision()
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        assert MigrationContext.configure(connection).get_current_heads() == (scripts.get_current_head(),)
    made.close()
    assert outcome.returncode == 0


def test_newest_revision_is_the_head_of_one_unbroken_chain(database: Database) -> None:
    with database.read() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))

    assert scripts.get_heads() == [newest_revision()]
    chain = [script.revision for script in scripts.walk_revisions()]
    assert chain == sorted(chain, reverse=True)


def test_revisions_import_nothing_of_ours(database: Database) -> None:
    with database.read() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))

    for script in scripts.walk_revisions():
        assert "lingpai" not in Path(script.path).read_text(encoding="utf-8"), script.path


def test_downgrade_leads_back_to_nothing(database: Database) -> None:
    from alembic import command

    database.migrate()

    with database.write() as connection:
        command.downgrade(alembic_config(connection), "base")

    with database.read() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version", "sqlite_sequence"}


def test_database_of_a_newer_release_is_left_alone(database: Database) -> None:
    database.migrate()
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(NewerDatabaseError, match="newer release"):
        database.migrate()


def test_failing_migration_leaves_the_database_as_it_was(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE api_keys (of_somebody_else INTEGER)"))

    with pytest.raises(Exception, match="api_keys already exists"):
        database.migrate()

    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["api_keys"]


def test_migrating_says_nothing_on_the_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        database.migrate()

    assert caplog.records == []


def test_awkward_characters_in_a_path_are_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "100%20 data? #令牌"
    folder.mkdir()
    database = Database(sqlite_url(folder / "lingpai.db"))

    database.migrate()

    assert database.path == folder / "lingpai.db"
    with database.read() as connection:
        assert current_revision(connection) == newest_revision()
    database.close()
