"""The tables `audit_records` and `audit_checkpoints`, and the triggers that let them only grow. Times are Unix seconds."""

from typing import Final

from sqlalchemy import DDL, Column, Double, Index, Integer, String, Table, Text, event

from lingpai.storage.metadata import metadata

# `line` is the record; the columns before it repeat what records are searched by, and verifying compares them with it.
audit_records: Final = Table(
    "audit_records",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, … without a gap
    Column("time", Double, nullable=False),
    Column("action", String(64), nullable=False),
    Column("result", String(16), nullable=False),
    Column("actor_id", String(64)),
    Column("actor_name", String(128)),
    Column("credential", String(64)),
    Column("target_kind", String(16)),
    Column("target_id", String(300)),
    Column("target_name", String(300)),
    Column("project_id", String(32)),
    Column(
        "line", Text, nullable=False
    ),  # as it is hashed and exported; it holds the hash of the line before it
    Column("hash", String(64), nullable=False),
    Index("ix_audit_records_time", "time"),
    Index("ix_audit_records_action", "action"),
    Index("ix_audit_records_actor_id", "actor_id"),
    Index("ix_audit_records_actor_name", "actor_name"),
    Index("ix_audit_records_credential", "credential"),
    Index("ix_audit_records_target_id", "target_id"),
    Index("ix_audit_records_target_name", "target_name"),
)

audit_checkpoints: Final = Table(
    "audit_checkpoints",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # of the last record it covers
    Column("line", Text, nullable=False),
)

TRIGGERS: Final = {
    f"audit_{table}_no_{verb}": (
        f"CREATE TRIGGER audit_{table}_no_{verb} BEFORE {verb.upper()} ON audit_{table} "
        f"BEGIN SELECT RAISE(ABORT, 'audit_{table} is only ever added to'); END"
    )
    for table in ("records", "checkpoints")
    for verb in ("update", "delete")
} | {
    # INSERT OR REPLACE would get past the two above; and there are no gaps in the numbers.
    "audit_records_in_order": (
        "CREATE TRIGGER audit_records_in_order BEFORE INSERT ON audit_records "
        "WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM audit_records) "
        "BEGIN SELECT RAISE(ABORT, 'audit_records are numbered 1, 2, 3, …'); END"
    ),
    "audit_checkpoints_in_order": (
        "CREATE TRIGGER audit_checkpoints_in_order BEFORE INSERT ON audit_checkpoints "
        "WHEN NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoints) "
        "BEGIN SELECT RAISE(ABORT, 'audit_checkpoints are in the order of numbers'); END"
    ),
}
"""SQLite's statements by the trigger's name. They keep programs from mistakes; who owns the file can drop them, and so
verifying stands on hashes and signatures, and tells of a trigger that is missing."""

for _name, _statement in TRIGGERS.items():
    event.listen(
        audit_records if "records" in _name else audit_checkpoints,
        "after_create",
        DDL(_statement).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call]  # SQLAlchemy's omission
    )
