"""The trail as a file: JSON lines that can be verified on their own, or CSV for spreadsheets.

A JSON Lines file begins with a line of type `begin`, then has a line for each record (with its hash) and, in a whole
trail, for each checkpoint where it belongs. It ends with a signed line of type `end`, which holds the digest of all lines
before it: whatever is missing or changed shows, the end of the file included. See `file_verification.py`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Row

from lingpai.audit.canonical import canonical, plain, time_text
from lingpai.audit.checkpoints import Sign
from lingpai.audit.store import AuditFilter, SqlAuditStore, Tail
from lingpai.web.export import Fields

COLUMNS: Final = (
    "number", "time", "action", "result", "reason", "actor_kind", "actor_id", "actor_name", "credential_kind",
    "credential_id", "target_kind", "target_id", "target_name", "project_id", "before", "after", "address",
    "user_agent", "request_id", "hash",
)  # fmt: skip
"""Of the CSV file."""

FORMAT_VERSION: Final = 1


class AuditExport:
    """Writes what fits a filter, piece by piece. Blocks."""

    def __init__(self, store: SqlAuditStore, *, sign: Sign, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sign = sign
        self._clock = clock

    def chunks(self, wanted: AuditFilter) -> Iterator[Sequence[Fields]]:
        """Rows of the CSV file."""
        tail = self._store.tail()
        for rows in self._store.all(wanted, last=tail.number if tail is not None else 0):
            yield [_cells(row) for row in rows]

    def lines(self, wanted: AuditFilter) -> Iterator[bytes]:
        """The JSON Lines file. Raises AuditKeyError before its end when that cannot be signed."""
        tail = self._store.tail() or Tail(0, "")
        digest = hashlib.sha256()
        count = checkpoints = first = last = 0
        begin = {
            "filter": {name: value for name, value in plain(asdict(wanted)).items() if value is not None},
            "time": time_text(self._clock()),
            "type": "begin",
            "version": FORMAT_VERSION,
            "whole": not wanted.leaves_gaps,
        }
        head = _piece([canonical(begin)])
        digest.update(head)
        yield head
        for rows in self._store.all(wanted, last=tail.number):
            count += len(rows)
            first, last = first or rows[0].number, rows[-1].number
            lines = list(self._with_checkpoints(rows, is_whole=not wanted.leaves_gaps))
            checkpoints += len(lines) - len(rows)
            piece = _piece(lines)
            digest.update(piece)
            yield piece
        end = {
            "checkpoints": checkpoints,
            "digest": digest.hexdigest(),
            "first": first,
            "last": last,
            "records": count,
            "time": time_text(self._clock()),
            "type": "end",
        }
        yield _piece([self._sign(end)])

    def _with_checkpoints(self, rows: Sequence[Row[Any]], *, is_whole: bool) -> Iterator[str]:
        checkpoints: dict[int, str] = {}
        if is_whole:
            found = self._store.checkpoints(rows[0].number, rows[-1].number)
            checkpoints = {row.number: row.line for row in found}
        for row in rows:
            yield canonical({**json.loads(row.line), "hash": row.hash})
            if row.number in checkpoints:
                yield checkpoints[row.number]


def _piece(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _cells(row: Row[Any]) -> dict[str, Any]:
    record = json.loads(row.line)
    actor, target = record["actor"], record["target"]
    credential = actor["credential"] or {}
    return {
        **{name: record[name] for name in COLUMNS if name in record},
        "actor_kind": actor["kind"],
        "actor_id": actor["id"],
        "actor_name": actor["name"],
        "credential_kind": credential.get("kind"),
        "credential_id": credential.get("id"),
        "target_kind": target["kind"],
        "target_id": target["id"],
        "target_name": target["name"],
        "before": _json(record["before"]),
        "after": _json(record["after"]),
        "hash": row.hash,
    }


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else canonical(value)
