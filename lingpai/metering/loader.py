"""Loading records into SQLite: records, roll-ups, charges, marks, damage and position in one transaction.

Plain `sqlite3`: the ingester should start in no time and stay small. The tables are described in `tables`.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import astuple

from lingpai.metering.records import BUCKET_SECONDS, MAX_NANO, UsageRecord, bucket_start
from lingpai.metering.segments import START, Position

_BUSY_TIMEOUT_S: Final = 10.0
_ROWS_AT_ONCE: Final = 16
_FEW: Final = 500
"""Up to so many records at a time there is no backlog: at 5,000 calls a second about 250 come between two looks."""

# The records' index is touched in as many places as there are keys: more cache and rarer checkpoints (every 16 MB)
# halve the time spent in the kernel, at 4 MB more of memory.
_PRAGMAS: Final = ("synchronous = NORMAL", "cache_size = -6000", "wal_autocheckpoint = 4000")

Row = TypeVar("Row")
RollUp = tuple[int | str, ...]
Subject = tuple[int, str, str, str, str]
"""A bucket, a kind and an id; for a user a project and a model."""
Amounts = tuple[int, int, int, int]
"""What was charged: requests, tokens, 10^-9 USD, 10^-9 CNY."""
Charge = tuple[int | str, ...]
Mark = tuple[int, int, int]
"""A bucket and the first and last id of its records."""
Damage = tuple[float, int, str]
"""When it was found, in which segment, and what it is."""

_INSERT_RECORD: Final = """
INSERT INTO usage_records
    (request_id, key_id, user_id, model, backend, task, endpoint, started_at, first_byte_ms, duration_ms,
     prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, counted, status, end_reason, charged, retries,
     client_address, project_id, client_id, charged_tokens, cost, currency, charged_cost, queued_ms)
VALUES (?, ifnull(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# A quarter of an hour that costs over a thousand million of a currency is a price gone wrong: it stops counting there
# rather than overflow, because SQLite would go on in floating point.
_ADD_ROLLUP: Final = f"""
INSERT INTO usage_rollups
    (bucket_start, key_id, user_id, client_id, project_id, model, task,
     requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
     charged_tokens, cost_usd, cost_cny, charged_usd, charged_cny)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (bucket_start, key_id, user_id, client_id, project_id, model, task) DO UPDATE SET
    requests = requests + excluded.requests,
    errors = errors + excluded.errors,
    refused = refused + excluded.refused,
    charged = charged + excluded.charged,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    charged_tokens = charged_tokens + excluded.charged_tokens,
    cost_usd = min({MAX_NANO}, cost_usd + excluded.cost_usd),
    cost_cny = min({MAX_NANO}, cost_cny + excluded.cost_cny),
    charged_usd = min({MAX_NANO}, charged_usd + excluded.charged_usd),
    charged_cny = min({MAX_NANO}, charged_cny + excluded.charged_cny)
"""  # noqa: S608  a number of ours

_ADD_CHARGE: Final = f"""
INSERT INTO usage_charges
    (bucket_start, kind, id, project_id, model, charged, charged_tokens, charged_usd, charged_cny)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (bucket_start, kind, id, project_id, model) DO UPDATE SET
    charged = charged + excluded.charged,
    charged_tokens = charged_tokens + excluded.charged_tokens,
    charged_usd = min({MAX_NANO}, charged_usd + excluded.charged_usd),
    charged_cny = min({MAX_NANO}, charged_cny + excluded.charged_cny)
"""  # noqa: S608  a number of ours

_ADD_MARK: Final = """
INSERT INTO usage_marks (bucket_start, first_id, last_id) VALUES (?, ?, ?)
ON CONFLICT (bucket_start) DO UPDATE SET
    first_id = min(first_id, excluded.first_id), last_id = max(last_id, excluded.last_id)
"""

_ADD_DAMAGE: Final = "INSERT INTO usage_damage (found_at, segment, description) VALUES (?, ?, ?)"

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

    def load(
        self,
        records: Sequence[UsageRecord],
        position: Position,
        *,
        damage: Sequence[Damage] = (),
        durable: bool = False,
    ) -> None:
        """Add `records`, note `damage` and move to `position`, all or nothing.

        With `durable` this and everything before it survives a power failure once the method returns: the segment that
        holds the records may then be deleted.
        """
        connection = self._connect()
        try:
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            if records:
                self._add(connection, records)
            connection.executemany(_ADD_DAMAGE, damage)
            connection.execute(_MOVE_POSITION, position)
            connection.execute("COMMIT")
            if durable:
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self.close()  # rolls back
            raise

    @staticmethod
    def _add(connection: sqlite3.Connection, records: Sequence[UsageRecord]) -> None:
        # With a backlog no word to the scheduler: under full load it would never end.
        politely: Callable[[Iterable[Any]], Iterable[Any]] = _politely if len(records) <= _FEW else iter
        connection.executemany(_INSERT_RECORD, politely(map(astuple, records)))
        # Inside one transaction the ids are consecutive: each is one more than the largest there is.
        (last_id,) = connection.execute("SELECT last_insert_rowid()").fetchone()
        rollups, marks = roll_up(records, first_id=last_id - len(records) + 1)
        connection.executemany(_ADD_ROLLUP, politely(rollups))
        connection.executemany(_ADD_CHARGE, politely(charges_of(rollups)))
        connection.executemany(_ADD_MARK, marks)

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


def _politely(rows: Iterable[Row]) -> Iterator[Row]:
    """`rows`, with a word to the scheduler now and then: whoever answers calls on the same processor shall not wait for
    milliseconds until so much work is done.
    """
    for number, row in enumerate(rows):
        if not number % _ROWS_AT_ONCE:
            os.sched_yield()
        yield row


def roll_up(records: Sequence[UsageRecord], *, first_id: int = 1) -> tuple[list[RollUp], list[Mark]]:
    """The sums of `records` per group in the order of the columns of usage_rollups, and the marks of their buckets.

    A group is a bucket, key, user, client, project, model and task. A refused call counts as refused only, and so does one
    whose caller left before it was admitted; an error is an admitted call that ended badly. The first record has the id
    `first_id`, and the others follow.

    `rebuild` says the same in SQL.
    """
    sums: dict[tuple[int, str, str, str, str, str, str], list[int]] = {}
    stretches: list[tuple[int, int]] = []
    bucket = bucket_end = 0
    for index, record in enumerate(records):
        if not bucket <= record.started_at < bucket_end:  # most records are in the bucket of the one before
            bucket = bucket_start(record.started_at)
            bucket_end = bucket + BUCKET_SECONDS
            stretches.append((bucket, first_id + index))
        key_id = record.key_id or ""
        group = (
            bucket,
            key_id,
            record.user_id,
            record.client_id,
            record.project_id,
            record.model,
            record.task,
        )
        total = sums.get(group)
        if total is None:
            total = sums[group] = [0] * 13
        _add_to(total, record)
    return [(*group, *total) for group, total in sums.items()], _marks(stretches, first_id + len(records))


def charges_of(rollups: Iterable[RollUp]) -> list[Charge]:
    """What users, models and clients were charged in `rollups`, in the order of the columns of usage_charges."""
    sums: dict[Subject, list[int]] = {}
    row: Any
    for row in rollups:
        amounts = (row[10], row[15], row[18], row[19])
        if any(amounts):
            bucket, _, user, client, project, model = row[:6]
            _add_amounts(sums, (bucket, "user", user, project, model), amounts)
            if model:
                _add_amounts(sums, (bucket, "model", model, "", ""), amounts)
            if client:
                _add_amounts(sums, (bucket, "client", client, "", ""), amounts)
    return [(*subject, *total) for subject, total in sums.items()]


def _add_amounts(sums: dict[Subject, list[int]], subject: Subject, amounts: Amounts) -> None:
    total = sums.get(subject)
    if total is None:
        sums[subject] = list(amounts)
        return
    charged, tokens, usd, cny = amounts
    total[0] += charged
    total[1] += tokens
    if usd:
        total[2] = min(MAX_NANO, total[2] + usd)
    if cny:
        total[3] = min(MAX_NANO, total[3] + cny)


def _add_to(total: list[int], record: UsageRecord) -> None:
    reason = record.end_reason
    # Whoever left while they waited for a limit was not admitted either.
    if reason == "refused" or (reason == "client_gone" and not record.charged):
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
    total[8] += record.charged_tokens
    if record.currency:
        place = 9 if record.currency == "USD" else 10
        total[place] = min(MAX_NANO, total[place] + record.cost)
        total[place + 2] = min(MAX_NANO, total[place + 2] + record.charged_cost)


def _marks(stretches: Sequence[tuple[int, int]], end_id: int) -> list[Mark]:
    """The marks of records that are in one bucket from an id of `stretches` up to the next, and the last to `end_id`."""
    marks: dict[int, Mark] = {}
    ends = [first for _, first in stretches[1:]] + [end_id]
    for (bucket, first), end in zip(stretches, ends, strict=False):
        marks[bucket] = (bucket, marks.get(bucket, (bucket, first))[1], end - 1)
    return list(marks.values())
