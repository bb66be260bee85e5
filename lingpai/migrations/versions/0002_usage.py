"""Usage records, their roll-ups, and how far the journal has been loaded."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_records",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("first_byte_ms", sa.Double, nullable=True),
        sa.Column("duration_ms", sa.Double, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("counted", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("end_reason", sa.String, nullable=False),
        sa.Column("charged", sa.Integer, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("client_address", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_records"),
    )
    op.create_index(
        "ix_usage_records_charged_calls_of_key",
        "usage_records",
        ["key_id", "started_at", "charged"],
        sqlite_where=sa.text("charged > 0"),
        postgresql_where=sa.text("charged > 0"),
    )
    op.create_table(
        "usage_rollups",
        sa.Column("bucket_start", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_start", "key_id", "user_id", "model", "task", name="pk_usage_rollups"
        ),
        sa.CheckConstraint(
            "min(requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)"
            " >= 0",
            name="ck_usage_rollups_totals_are_not_negative",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_rollups_key_id_bucket_start", "usage_rollups", ["key_id", "bucket_start"])
    op.create_index("ix_usage_rollups_user_id_bucket_start", "usage_rollups", ["user_id", "bucket_start"])
    op.create_table(
        "journal_position",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_journal_position"),
        sa.CheckConstraint("id = 1", name="ck_journal_position_has_one_row"),
    )


def downgrade() -> None:
    op.drop_table("journal_position")
    op.drop_table("usage_rollups")
    op.drop_table("usage_records")
