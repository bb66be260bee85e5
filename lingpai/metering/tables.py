"""The tables of metering. The ingester writes them (`loader`, without SQLAlchemy), the store reads them."""

from collections.abc import Iterator, Sequence
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
from sqlalchemy.schema import SchemaItem

from lingpai.storage.metadata import metadata, partial_index

COUNTS: Final = (
    "requests", "errors", "refused", "charged", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "charged_tokens",
)  # fmt: skip
MONEY: Final = ("cost_usd", "cost_cny", "charged_usd", "charged_cny")
CHARGED: Final = ("charged", "charged_tokens", "charged_usd", "charged_cny")
"""Of both, what was taken from limits and kept."""


def _sums(names: Sequence[str], *, check: str) -> Iterator[SchemaItem]:
    """Columns in which something is added up, and the constraint `check`, which keeps them from being negative."""
    for name in names:
        yield Column(name, BigInteger, nullable=False)
    yield CheckConstraint(f"min({', '.join(names)}) >= 0", name=check)


# One row per record, in the order they arrived. `key_id` is empty for a call without a key.
# There is one index, because each costs about a microsecond of CPU per call: it answers what a key has been charged
# since a moment. The calls of a user, project or model are found through the keys that the roll-ups know of it, reports
# read the roll-ups, and a period of time is found through `usage_marks`. Amounts of money are in 10^-9 of the currency.
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
    Column("project_id", String, nullable=False, server_default=text("''")),
    Column("client_id", String, nullable=False, server_default=text("''")),
    Column("charged_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cost", BigInteger, nullable=False, server_default="0"),
    Column("currency", String, nullable=False, server_default=text("''")),
    Column("charged_cost", BigInteger, nullable=False, server_default="0"),
    Column("queued_ms", Double, nullable=False, server_default="0"),
)

partial_index(
    "ix_usage_records_charged_calls_of_key",
    usage_records.c.key_id,
    usage_records.c.started_at,
    usage_records.c.charged,
    where="charged > 0",
)

# Sums per 15 minutes (UTC). Few rows, so its indexes cost nothing to speak of.
usage_rollups: Final = Table(
    "usage_rollups",
    metadata,
    Column("bucket_start", BigInteger, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("client_id", String, primary_key=True),
    Column("project_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("task", String, primary_key=True),
    *_sums((*COUNTS, *MONEY), check="totals_are_not_negative"),
    Index("ix_usage_rollups_key_id_bucket_start", "key_id", "bucket_start"),
    Index("ix_usage_rollups_client_id_bucket_start", "client_id", "bucket_start"),
    Index("ix_usage_rollups_user_id_bucket_start", "user_id", "bucket_start"),
    Index("ix_usage_rollups_project_id_bucket_start", "project_id", "bucket_start"),
    Index("ix_usage_rollups_model_bucket_start", "model", "bucket_start"),
    sqlite_with_rowid=False,
)

# What was charged per 15 minutes, whatever the number of keys: to each user for each project and model, and to each model
# and OAuth client as a whole (`project_id` and `model` are empty then). Without it the first call on a limited model would
# add up the roll-ups of every key that calls it. A project has few users, so they need no row of their own.
usage_charges: Final = Table(
    "usage_charges",
    metadata,
    Column("bucket_start", BigInteger, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("project_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    *_sums(CHARGED, check="charges_are_not_negative"),
    Index("ix_usage_charges_kind_id_bucket_start", "kind", "id", "bucket_start"),
    Index("ix_usage_charges_project_id_bucket_start", "project_id", "bucket_start"),
    sqlite_with_rowid=False,
)

# Which rows of usage_records can belong to a bucket: none with an `id` below `first_id` or above `last_id`. Records
# arrive when their calls end, so neighbouring buckets overlap. This spares an index on `started_at`.
usage_marks: Final = Table(
    "usage_marks",
    metadata,
    Column("bucket_start", BigInteger, primary_key=True, autoincrement=False),
    Column("first_id", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
    CheckConstraint("first_id <= last_id", name="ids_are_in_order"),
)

# What the journal's reader had to skip, for good: an operator must be able to learn of it after the log is gone.
usage_damage: Final = Table(
    "usage_damage",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("found_at", Double, nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("description", String, nullable=False),
)

# The bucket from which on every record is kept. What is older was deleted, wholly or in part: of that time the roll-ups
# are all that is known. No row: nothing was ever deleted.
usage_retention: Final = Table(
    "usage_retention",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kept_since", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="has_one_row"),
)

# How far the journal is in the records, roll-ups, marks and damage above; changed in the same transaction.
journal_position: Final = Table(
    "journal_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="has_one_row"),
)
