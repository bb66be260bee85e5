"""The database of a data directory, for commands that write to it themselves."""

from lingpai.cli.failures import CommandError
from lingpai.cli.options import Options
from lingpai.cli.server import data_directory
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.migrate import NewerDatabaseError, ensure_newest_revision


def open_database(options: Options) -> Database:
    """Open it, whether or not a server runs on it. Raises CommandError when it is not there, or of another release."""
    path = data_directory(options) / "lingpai.db"
    if not path.is_file():
        raise CommandError(f"There is no {path}. Name the server's data directory with --data.")
    database = Database(sqlite_url(path))
    try:
        with database.read() as connection:
            is_newest = ensure_newest_revision(connection, may_change=False)
    except NewerDatabaseError as error:
        raise CommandError(str(error)) from error
    if not is_newest:
        raise CommandError(
            f"{path} was written by an older release. Start the server once: it brings it up to date."
        )
    return database
