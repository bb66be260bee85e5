"""Loading records into SQLite: records, roll-ups and position in one transaction.

Plain `sqlite3`: the ingester should start in no time and stay small. The tables are described in `tables`.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec.structs import astuple

from lingpai.metering.records import UsageRecord, bucket_start
from lingpai.metering.segments import START, Position

_BUSY_TIMEOUT_S: Final = 10.0

# The records' index is touched in as many places as there are keys: more cache and rarer checkpoints (every 16 MB)
# halve the time spent in the kernel, at 4 MB more of memory.
_PRAGMAS: Final = ("synchronous = NORMAL", "cache_size = -6000", "wal_autocheckpoint = 4000")

RollUp = tuple[int | str, ...]

_INSERT_RECORD: Final = """
INSERT INTO usage_records
    (request_id, key_id, user_id, model, backend, task, endpoint, started_at, first_byte_ms, duration_ms,
     prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, counted, status, end_reason, charged, retries,
     client_address)
VALUES (?, ifnull(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_ADD_ROLLUP: Final = """
INSERT INTO usage_rollups
    (bucket_start, key_id, user_id, model, task,
     requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (bucket_start, key_id, user_id, model, task) DO UPDATE SET
    requests = requests + excluded.requests,
    errors = errors + excluded.errors,
    refused = refused + excluded.refused,
    charged = charged + excluded.charged,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens
"""

_MOVE_POSITION: Final = """
INSERT INTO journal_position (id, segment, "offset") VALUES (1, ?, ?)
ON CONFLICT (id) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset"
"""


class SqliteLoader:
    """Writes to one database file. Every method may raise sqlite3.Error and can be called again then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def position(self) -> Position:
        """How far the journal has been loaded; the very start when nothing was."""
        with closing(self._connect().execute('SELECT segment, "offset" FROM journal_position')) as rows:
            row: Position | None = rows.fetchone()
        return START if row is None else row

    def load(self, records: Sequence[UsageRecord], position: Position, *, durable: bool = False) -> None:
        """Add `records` and move to `position`, all or nothing.

        With `durable` this and everything before it survives a power failure once the method returns: the segment that
        holds the records may then be deleted.
        """
        connection = self._connect()
        try:
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT_RECORD, map(astuple, records))
            connection.executemany(_ADD_ROLLUP, roll_up(records))
            connection.execute(_MOVE_POSITION, position)
            connection.execute("COMMIT")
            if durable:
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self.close()  # rolls back
            raise

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            # A missing file is an error: the server makes it, and the ingester would make one without tables.
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, isolation_level=None, uri=True)
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
        return self._connection


def roll_up(records: Sequence[UsageRecord]) -> list[RollUp]:
    """The sums of `records` per bucket, key, user, model and task, in the order of the columns of usage_rollups.

    A refused call counts as refused only; an error is an admitted call that ended badly.
    """
    sums: dict[tuple[int, str, str, str, str], list[int]] = {}
    for record in records:
        group = (
            bucket_start(record.started_at),
            record.key_id or "",
            record.user_id,
            record.model,
            record.task,
        )
        total = sums.get(group)
        if total is None:
            total = sums[group] = [0] * 8
        reason = record.end_reason
        if reason == "refused":
            total[2] += 1
        else:
            total[0] += 1
            if record.status >= 400 or reason in ("upstream_error", "timeout"):
                total[1] += 1
        total[3] += record.charged
        total[4] += record.prompt_tokens
        total[5] += record.completion_tokens
        total[6] += record.cached_tokens
        total[7] += record.reasoning_tokens
    return [(*group, *total) for group, total in sums.items()]
