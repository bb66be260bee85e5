"""Verifying the trail in a database, offline: the file is only read, whether or not a server runs on it."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from lingpai.audit.canonical import canonical
from lingpai.audit.chain import Chain, Report, Vouch
from lingpai.audit.service import row_of
from lingpai.audit.tables import TRIGGERS

_TELL_EVERY: Final = 1000

Progress = Callable[[int, int], None]


class NoTrailError(Exception):
    """There is no trail in this file; the message says why."""


def verify_database(
    path: Path,
    keys: Vouch,
    outside: Sequence[Mapping[str, Any]] = (),
    *,
    on_progress: Progress = lambda *_: None,
) -> Report:
    """Check every record of the database at `path`, its checkpoints, and those that were kept outside of it.

    Read `outside` before: it may not be newer than the database. `on_progress` hears how many records are done, of how
    many. Raises NoTrailError when there is none to check.
    """
    report = Report()
    with _open(path) as connection:
        _check_triggers(connection, report)
        _check_records(connection, Chain(report, keys, begins_at=1), report, on_progress)
        for statement in outside:
            _check_outside(connection, report, keys, statement)
    on_progress(report.records, report.records)
    return report


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise NoTrailError(f"There is no {path}. Name the server's data directory with --data.")
    try:
        # One transaction throughout: SQLite shows the state at its beginning, whatever is written meanwhile.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as found:
            found.row_factory = sqlite3.Row
            # Text that is none is a finding, not a failure: it will have another hash.
            found.text_factory = lambda content: content.decode("utf-8", "replace")
            found.execute("BEGIN")
            yield found
    except sqlite3.DatabaseError as error:
        raise NoTrailError(f"{path} cannot be read: {error}") from error


def _count(connection: sqlite3.Connection) -> int:
    try:
        found = connection.execute("SELECT count(*) FROM audit_records").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise NoTrailError(
                "This database has no audit trail: an older release wrote it. Start the server once."
            ) from error
        raise
    return int(found)


def _check_triggers(connection: sqlite3.Connection, report: Report) -> None:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    found = {row["name"]: row["sql"] for row in rows}
    for name, statement in TRIGGERS.items():
        if found.get(name) != statement:
            state = "was changed" if name in found else "is missing"
            report.add(f"the trigger {name}, which keeps records from being changed, {state}")


def _check_records(
    connection: sqlite3.Connection, chain: Chain, report: Report, on_progress: Progress
) -> None:
    """Check all records in their order, each with its checkpoint, and then checkpoints without records."""
    total = _count(connection)
    rows = connection.execute("SELECT * FROM audit_records ORDER BY number")
    checkpoints = connection.execute("SELECT number, line FROM audit_checkpoints ORDER BY number")
    checkpoint, last = checkpoints.fetchone(), 0
    for done, row in enumerate(rows):
        if done % _TELL_EVERY == 0:
            on_progress(done, total)
        _check_row(chain, row)
        last = row["number"]
        while checkpoint is not None and checkpoint["number"] <= last:
            _check_checkpoint(chain, checkpoint["number"], checkpoint["line"])
            checkpoint = checkpoints.fetchone()
    while checkpoint is not None:
        time = (_parsed(checkpoint["line"]) or {}).get("time")
        number = checkpoint["number"]
        report.add(_cut_off(last, number, "a checkpoint"), number=number, time=time)
        checkpoint = checkpoints.fetchone()


def _check_row(chain: Chain, row: sqlite3.Row) -> None:
    number = row["number"]
    record = _parsed(row["line"])
    if record is None:
        chain.missing(number, "is damaged: it cannot be read")
    elif record.get("number") != number:
        chain.missing(number, f"is not here: record {record.get('number')} stands in its place")
    else:
        chain.record(record, row["line"], row["hash"])
        differing = _differing(row, record)
        if differing:
            chain.tell(
                f"the columns {', '.join(differing)} do not say what the record says: lists and searches show them",
                number=number,
                time=str(record.get("time")),
            )


def _check_checkpoint(chain: Chain, number: int, line: str) -> None:
    statement = _parsed(line)
    if statement is None or statement.get("number") != number or "hash" not in statement:
        chain.tell("its checkpoint is damaged: it cannot be read", number=number)
    else:
        chain.checkpoint(statement)


def _differing(row: sqlite3.Row, record: dict[str, Any]) -> list[str]:
    """The columns that say something else than the record."""
    try:
        expected = row_of(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["line"]
    del expected["hash"]  # compared already
    return [name for name, value in expected.items() if row[name] != value]


def _check_outside(
    connection: sqlite3.Connection, report: Report, keys: Vouch, statement: Mapping[str, Any]
) -> None:
    number, time = statement.get("number"), statement.get("time")
    if not keys.vouch_for(statement) or not isinstance(number, int):
        report.add("a checkpoint outside of the database is not signed by a known key", time=time)
        return
    row = connection.execute("SELECT hash FROM audit_records WHERE number = ?", (number,)).fetchone()
    if row is None:
        last = connection.execute("SELECT coalesce(max(number), 0) FROM audit_records").fetchone()[0]
        message = _cut_off(last, number, "the checkpoint outside of the database")
        report.add(message, number=number, time=time)
    elif row["hash"] != statement["hash"]:
        message = "is not the one that was signed: the checkpoint outside of the database has another hash"
        report.add(message, number=number, time=time)
    elif not connection.execute("SELECT 1 FROM audit_checkpoints WHERE number = ?", (number,)).fetchone():
        report.add("its checkpoint was taken out of the database", number=number, time=time)
    else:
        report.signed_up_to = max(report.signed_up_to, number)


def _cut_off(last: int, signed: int, by: str) -> str:
    if signed <= last:
        return f"is missing, as {by} says"
    missing = f"record {signed} is" if signed == last + 1 else f"records {last + 1} to {signed} are"
    return f"{missing} missing at the end, as {by} says: cut off, or an older backup was restored"


def _parsed(line: str) -> dict[str, Any] | None:
    """What a line says, if it is written as all are."""
    try:
        found = json.loads(line)
        return found if isinstance(found, dict) and canonical(found) == line else None
    except (ValueError, TypeError, RecursionError):
        return None
