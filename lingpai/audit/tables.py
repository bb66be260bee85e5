"""The tables `audit_records` and `audit_checkpoints`. Times are Unix seconds."""

from typing import Final

from sqlalchemy import JSON, Column, Double, Index, Integer, LargeBinary, String, Table, Text

from lingpai.storage.metadata import metadata

# Only ever added to. `hash` covers everything else in the row, `previous_hash` included, so the rows make a chain.
audit_records: Final = Table(
    "audit_records",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, … without a gap
    Column("time", Double, nullable=False),
    Column("action", String(64), nullable=False),
    Column("result", String(16), nullable=False),
    Column("reason", String(300)),
    Column("actor_kind", String(16), nullable=False),
    Column("actor_id", String(64)),
    Column("actor_name", String(128)),
    Column("credential", String(64)),
    Column("target_kind", String(16)),
    Column("target_id", String(300)),
    Column("target_name", String(300)),
    Column("project_id", String(32)),
    Column("before", JSON),
    Column("after", JSON),
    Column("address", String(45)),
    Column("user_agent", String(200)),
    Column("request_id", String(64)),
    Column("line", Text, nullable=False),  # the record as it is hashed and exported
    Column("hash", String(64), nullable=False),
    Index("ix_audit_records_time", "time"),
    Index("ix_audit_records_actor_id", "actor_id"),
    Index("ix_audit_records_target_id", "target_id"),
    Index("ix_audit_records_action", "action"),
)

audit_checkpoints: Final = Table(
    "audit_checkpoints",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # of the last record it covers
    Column("time", Double, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
