"""The tables of metering. The ingester writes them (`loader`, without SQLAlchemy), the store reads them."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    String,
    Table,
    text,
)

from lingpai.storage.metadata import metadata

# One row per record, in the order they arrived. `key_id` is empty for a call without a key.
# There is one index, because each costs about a microsecond of CPU per call: it answers what a key has been charged
# since a moment. A user's calls are found through the keys that the roll-ups know of that user, reports read the
# roll-ups, and rows are in the order of time well enough for listing and expiry by `id`.
usage_records: Final = Table(
    "usage_records",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("task", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("first_byte_ms", Double),
    Column("duration_ms", Double, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("counted", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("end_reason", String, nullable=False),
    Column("charged", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("client_address", String, nullable=False),
)

Index(
    "ix_usage_records_charged_calls_of_key",
    usage_records.c.key_id,
    usage_records.c.started_at,
    usage_records.c.charged,
    sqlite_where=text("charged > 0"),
    postgresql_where=text("charged > 0"),
)

# Sums per 15 minutes (UTC). Few rows, so its indexes cost nothing to speak of.
usage_rollups: Final = Table(
    "usage_rollups",
    metadata,
    Column("bucket_start", BigInteger, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    CheckConstraint(
        "min(requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens) >= 0",
        name="totals_are_not_negative",
    ),
    Index("ix_usage_rollups_key_id_bucket_start", "key_id", "bucket_start"),
    Index("ix_usage_rollups_user_id_bucket_start", "user_id", "bucket_start"),
    sqlite_with_rowid=False,
)

# How far the journal is in the two tables above; changed in the same transaction.
journal_position: Final = Table(
    "journal_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="has_one_row"),
)
