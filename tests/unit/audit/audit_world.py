"""What the tests of the trail share: a data directory, deeds, and somebody who tampers with the file."""

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lingpai.audit.canonical import canonical, hash_of
from lingpai.audit.chain import Report
from lingpai.audit.checkpoints import Checkpoints, kept_outside
from lingpai.audit.database_verification import verify_database
from lingpai.audit.export import AuditExport
from lingpai.audit.file_verification import verify_file
from lingpai.audit.keys import FILE, read_keys
from lingpai.audit.service import SqlTrail
from lingpai.audit.signing import PublicKeys, public_keys, sign
from lingpai.audit.store import AuditFilter, SqlAuditStore
from lingpai.audit.tables import TRIGGERS
from lingpai.principal import Principal
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import Deed

NOW = 1_795_000_000.0
ALICE = Principal("usr_alice", "alice", "admin", key_id="alices", scopes=frozenset({"audit:read"}))
BOB = Principal("usr_bob", "bob", "member", key_id="bobs")


class Clock:
    """Goes on by a second whenever it is asked."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


class World:
    """A trail in a data directory. Statements are signed in this process, which is faster."""

    def __init__(self, data: Path, clock: Clock) -> None:
        self.data = data
        self.path = data / "lingpai.db"
        self.database = Database(sqlite_url(self.path))
        self.trail = SqlTrail(self.database, clock=clock)
        self.store = SqlAuditStore(self.database)
        self.checkpoints = Checkpoints(self.database, self.store, data / "audit", sign=self.sign, clock=clock)
        self.exporting = AuditExport(self.store, sign=self.sign, clock=clock)

    def sign(self, statement: dict[str, Any]) -> str:
        return sign(read_keys(self.data / FILE), statement)

    @property
    def keys(self) -> PublicKeys:
        return PublicKeys(public_keys(read_keys(self.data / FILE)).values())

    def close(self) -> None:
        self.database.close()

    # -- the honest

    def act(self, *names: str, caller: Principal | None = ALICE) -> None:
        """A record of each."""
        for name in names:
            self.trail.note(caller, Deed(action="key.create", target_kind="key", target_id=name))

    def history(self) -> None:
        """Twelve records: checkpoints at 4 and 8, and at 10 one that is outside as well; two records behind it."""
        for first, last in ((1, 4), (5, 8), (9, 10)):
            self.act(*(f"key-{number}" for number in range(first, last + 1)))
            self.checkpoints.write()
        self.act("key-11", "key-12")

    def records(self) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            rows = connection.exec_driver_sql("SELECT line FROM audit_records ORDER BY number")
            return [json.loads(row.line) for row in rows]

    def export(self, wanted: AuditFilter | None = None) -> bytes:
        return b"".join(self.exporting.lines(wanted or AuditFilter()))

    def verify(self) -> Report:
        outside = [json.loads(path.read_bytes()) for path in kept_outside(self.data)]
        return verify_database(self.path, self.keys, outside)

    def verify_export(self, content: bytes) -> Report:
        return verify_file(io.BytesIO(content), self.keys)

    # -- who owns the file, and has not got the key

    @contextmanager
    def tampering(self) -> Iterator[sqlite3.Connection]:
        """Write to the database past the triggers, which are there again afterwards."""
        with closing(sqlite3.connect(self.path)) as connection:
            for name in TRIGGERS:
                connection.execute(f"DROP TRIGGER {name}")
            yield connection
            for statement in TRIGGERS.values():
                connection.execute(statement)
            connection.commit()


def rechain(connection: sqlite3.Connection, first: int) -> None:
    """Work out anew the hashes of all records from `first` on, as anybody can."""
    row = connection.execute("SELECT hash FROM audit_records WHERE number = ?", (first - 1,)).fetchone()
    previous = "0" * 64 if row is None else row[0]
    rows = connection.execute(
        "SELECT number, line FROM audit_records WHERE number >= ? ORDER BY number", (first,)
    )
    for number, line in rows.fetchall():
        new = canonical({**json.loads(line), "number": number, "previous": previous})
        previous = hash_of(new)
        connection.execute(
            "UPDATE audit_records SET line = ?, hash = ? WHERE number = ?", (new, previous, number)
        )


def messages(report: Report) -> list[tuple[int | None, str]]:
    """The findings: the record's number, and what is wrong."""
    return [(finding.number, finding.message) for finding in report.findings]
