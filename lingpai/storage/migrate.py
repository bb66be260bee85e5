"""Which revision a database has, and how it gets to the newest.

Alembic takes longer to import than the rest of a start, so it is loaded only when there is something to migrate:
the newest revision is read off the file names in `lingpai/migrations/versions/`, the database's from its one-row table.
"""

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from sqlalchemy import Connection, MetaData, inspect, text

_REVISION_FILE: Final = re.compile(r"(\d{4})_\w+\.py")


class NewerDatabaseError(Exception):
    """The database was written by a newer release, which this one must not touch."""


def migrations_folder() -> Traversable:
    """Where Alembic's environment and the revisions are, in a checkout and in an installed wheel alike."""
    return files("lingpai.migrations")


@cache
def newest_revision() -> str:
    """The revision that this release works with: the highest number among the files in ``migrations/versions/``."""
    names = (entry.name for entry in (migrations_folder() / "versions").iterdir())
    return max(match[1] for name in names if (match := _REVISION_FILE.fullmatch(name)))


def current_revision(connection: Connection) -> str | None:
    """The database's revision, or None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def ensure_newest_revision(
    connection: Connection, *, may_change: bool, tables: MetaData | None = None
) -> bool:
    """Whether the tables have the newest revision; with `may_change` they are brought there first.

    `tables` are those of the newest revision, for an empty database; without them it goes through all revisions.
    Everything happens in the caller's transaction, so a migration that fails leaves the database as it was.
    Raises NewerDatabaseError when the database is ahead of this release.
    """
    current, newest = current_revision(connection), newest_revision()
    if current is not None and current > newest:
        raise NewerDatabaseError(
            f"the database has revision {current}, written by a newer release; this one knows revisions up to {newest}. "
            "Start the newer release, or restore a backup made before the upgrade."
        )
    if current is None and may_change and tables is not None:
        _create(connection, tables, newest)
        return True
    if current != newest and may_change:
        from lingpai.storage.upgrade import upgrade  # noqa: PLC0415  see the module's docstring

        upgrade(connection, newest)
        return True
    return current == newest


def _create(connection: Connection, tables: MetaData, revision: str) -> None:
    """Make all tables, and note that they have `revision` as Alembic would."""
    tables.create_all(connection)
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
