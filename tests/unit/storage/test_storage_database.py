"""The database: transactions, durability settings, privacy of the file."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from lingpai.storage.database import Database, sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/lingpai.db")
    with database.write() as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    yield database
    database.close()


def value(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT value FROM counter")).scalar_one())


def test_write_commits_at_the_end(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE counter SET value = 7"))

    assert value(database) == 7


def test_write_rolls_back_on_an_exception(database: Database) -> None:
    def fail_half_way() -> None:
        with database.write() as connection:
            connection.execute(text("UPDATE counter SET value = 7"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()

    assert value(database) == 0


def test_what_is_written_through_a_reading_connection_is_rolled_back(database: Database) -> None:
    with database.read() as connection:
        connection.execute(text("UPDATE counter SET value = 7"))

    assert value(database) == 0


def test_write_takes_the_lock_before_it_reads_so_that_no_update_is_lost(database: Database) -> None:
    def increment() -> None:
        for _ in range(20):
            with database.write() as connection:
                seen = connection.execute(text("SELECT value FROM counter")).scalar_one()
                connection.execute(text("UPDATE counter SET value = :value"), {"value": seen + 1})

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert value(database) == 80


def test_reader_sees_one_state_while_others_write(database: Database) -> None:
    with database.read() as connection:
        before = connection.execute(text("SELECT value FROM counter")).scalar_one()
        with database.write() as writer:
            writer.execute(text("UPDATE counter SET value = 7"))
        after = connection.execute(text("SELECT value FROM counter")).scalar_one()

    assert (before, after, value(database)) == (0, 0, 7)


def test_transaction_kind_does_not_stick_to_a_pooled_connection(database: Database) -> None:
    with database.write():
        pass

    with (
        database.read() as first,
        database.read() as second,
    ):  # two immediate transactions would wait for each other
        assert first.execute(text("SELECT value FROM counter")).scalar_one() == 0
        assert second.execute(text("SELECT value FROM counter")).scalar_one() == 0


def test_connections_are_set_up_for_wal_and_foreign_keys(database: Database) -> None:
    with database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 10_000}


@pytest.mark.parametrize("fails", [False, True])
def test_commits_wait_for_the_disk_unless_told_otherwise(database: Database, *, fails: bool) -> None:
    """With FULL, SQLite calls fsync on the log at each commit; the next user of the connection starts with NORMAL."""

    def level(**options: bool) -> int:
        with database.write(**options) as connection:
            return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    assert (level(), level(durable=False)) == (2, 1)
    with suppress(ZeroDivisionError), database.write():
        1 / int(not fails)
    assert (level(durable=False), level()) == (1, 2)


def test_exceptions_do_not_show_values(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE secrets (value TEXT CHECK (value = 'none'))"))

    with pytest.raises(IntegrityError) as caught, database.write() as connection:
        connection.execute(text("INSERT INTO secrets VALUES (:value)"), {"value": "canary"})

    assert "canary" not in str(caught.value)


def test_file_is_for_its_owner_only(database: Database, tmp_path: Path) -> None:
    assert database.path == tmp_path / "lingpai.db"
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.parametrize(
    "url", ["postgresql://host/db", "sqlite://", "sqlite:///relative.db", "sqlite:////tmp/a.db?mode=ro"]
)
def test_other_urls_are_refused_with_the_form_to_use(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:////absolute/path"):
        Database(url)


def test_password_in_a_refused_url_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"\*\*\*") as caught:
        Database("postgresql://user:canary@host/db")

    assert "canary" not in str(caught.value)


def test_missing_folder_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Database(f"sqlite:///{tmp_path}/nowhere/lingpai.db")


def test_query_on_a_missing_table_is_an_operational_error(database: Database) -> None:
    with pytest.raises(OperationalError), database.read() as connection:
        connection.execute(text("SELECT 1 FROM nothing"))


def test_file_that_was_moved_away_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """Whoever brings it back would find another in its place."""
    path = tmp_path / "a b%20ä?.db"
    database = Database(sqlite_url(path))
    database.migrate()
    path.rename(tmp_path / "away")

    with database.read() as first:
        first.execute(text("SELECT 1"))  # what is open goes on
        with pytest.raises(OperationalError, match="unable to open"), database.read() as second:
            second.execute(text("SELECT 1"))

    assert not path.exists()
    database.close()


def test_what_is_committed_is_forced_to_the_disk(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, which is where commits go first."""
    synced: list[Path] = []
    fsync = os.fsync
    monkeypatch.setattr(
        "os.fsync", lambda number: (synced.append(Path(f"/proc/self/fd/{number}").readlink()), fsync(number))
    )
    with database.write() as connection:
        connection.execute(text("CREATE TABLE a (b)"))

    database.force_to_disk()

    assert synced == [Path(f"{database.path}-wal")]


def test_a_database_that_nobody_has_written_to_needs_no_forcing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new.db")

    database.force_to_disk()

    database.close()
