"""The database: connections for reading and writing, set up the way the product relies on."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from lingpai.storage.migrate import ensure_newest_revision

BUSY_TIMEOUT_S: Final = 10.0
_BEGIN_OPTION: Final = "lingpai_begin"

# FastAPI runs synchronous handlers in 40 threads and each may hold a connection; the rest is for background jobs.
_POOL_SIZE: Final = 8
_POOL_OVERFLOW: Final = 40


class Database:
    """A SQLite file in WAL mode: many readers, one writer at a time, readers never wait for the writer.

    All methods block; code on the event loop calls them in a thread. The object may be shared by threads.
    """

    def __init__(self, url: str) -> None:
        """Open the database at `url` (``sqlite:////absolute/path/lingpai.db``), creating an empty file when there is none.

        The file is readable by its owner only. Raises ValueError for any other kind of URL, OSError when the file
        cannot be created.
        """
        self._path = _sqlite_path(url)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._engine = _create_engine(self._path)

    @property
    def path(self) -> Path | None:
        """The file, or None when the database is not a file."""
        return self._path

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one unchanging state of the database. What is written through it is rolled back."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start; committed at the end, rolled back on any exception.

        Because the lock is taken first, what the block reads cannot change before it writes. Waits up to 10 seconds
        for another writer, then raises sqlalchemy.exc.OperationalError.

        What is committed survives the end of the process, however sudden, and a power failure, too: what a key may not do
        any more must not come back. That waits for the disk; `durable=False` does not, for what may be lost then, such as
        when a key was last used.
        """
        connection = self._engine.connect().execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"})
        with connection, _synchronous(connection, durable=durable), connection.begin():
            yield connection

    def migrate(self, tables: MetaData | None = None) -> None:
        """Bring the tables to the newest revision; costs one query when they are there already.

        With `tables`, all that this release describes, an empty database gets them at once and not revision by
        revision: that leaves Alembic, 9 MB of memory and a third of a second, out of a first start.

        Raises `lingpai.storage.migrate.NewerDatabaseError` when a newer release wrote this database.
        """
        with self.read() as connection:
            if ensure_newest_revision(connection, may_change=False):
                return
        with self.write() as connection:
            ensure_newest_revision(connection, may_change=True, tables=tables)

    def force_to_disk(self) -> None:
        """Wait until all that is committed is on the disk, and would survive a power failure, too. Raises OSError.

        Commits that are not `durable` do not wait for that (`synchronous = NORMAL`): they are in the write-ahead log, which the kernel has.
        """
        try:
            descriptor = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # there is no log while nobody has written: all is in the file
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()


@contextmanager
def _synchronous(connection: Connection, *, durable: bool) -> Iterator[None]:
    if not durable:
        yield
        return
    # Not through SQLAlchemy: the setting cannot change within a transaction, which any statement would begin.
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        raw.execute("PRAGMA synchronous = NORMAL")


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite file at `path`, with whatever URLs need quoted."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


def _sqlite_path(url: str) -> Path:
    parsed = make_url(url)
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"} or parsed.query:
        raise ValueError(
            f"cannot use the database {parsed!r}: this version stores in SQLite, sqlite:////absolute/path/lingpai.db"
        )
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise ValueError(
            f"the database {parsed!r} needs an absolute path: sqlite:////absolute/path/lingpai.db"
        )
    return Path(parsed.database)


def _create_engine(path: Path) -> Engine:
    engine = create_engine(
        # mode=rw: were the file moved away while the server runs, a new connection would make an empty one in its place.
        URL.create("sqlite", database=path.as_uri(), query={"mode": "rw", "uri": "true"}),
        hide_parameters=True,  # exceptions print statements; values may be secrets
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
    )
    event.listen(engine, "connect", _set_up_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up_connection(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # Python's sqlite3 would begin transactions late and never IMMEDIATE; `_begin` does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN_OPTION, "BEGIN"))
