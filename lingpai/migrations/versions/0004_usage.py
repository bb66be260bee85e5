"""Usage: projects, prices and what was charged; where to find a time's records; damage; what retention has deleted.

Everything recorded so far was free, waited for no limit, and was charged requests only: the defaults say so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_GROUP = "bucket_start, key_id, user_id, model, task"
_SUMS = (
    "requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens"
)


def upgrade() -> None:
    _extend_records()
    _rebuild_rollups()
    _add_charges()
    op.create_table(
        "usage_marks",
        sa.Column("bucket_start", sa.BigInteger, nullable=False),
        sa.Column("first_id", sa.Integer, nullable=False),
        sa.Column("last_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("bucket_start", name="pk_usage_marks"),
        sa.CheckConstraint("first_id <= last_id", name="ck_usage_marks_ids_are_in_order"),
    )
    op.execute(
        "INSERT INTO usage_marks (bucket_start, first_id, last_id) "
        "SELECT CAST(started_at AS INTEGER) - CAST(started_at AS INTEGER) % 900 AS bucket, min(id), max(id) "
        "FROM usage_records GROUP BY bucket"
    )
    op.create_table(
        "usage_damage",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("found_at", sa.Double, nullable=False),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_damage"),
    )
    op.create_table(
        "usage_retention",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kept_since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_retention"),
        sa.CheckConstraint("id = 1", name="ck_usage_retention_has_one_row"),
    )


def _extend_records() -> None:
    for column in (
        sa.Column("project_id", sa.String, nullable=False, server_default=""),
        sa.Column("client_id", sa.String, nullable=False, server_default=""),
        sa.Column("charged_tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cost", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("currency", sa.String, nullable=False, server_default=""),
        sa.Column("charged_cost", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("queued_ms", sa.Double, nullable=False, server_default="0"),
    ):
        op.add_column("usage_records", column)


def _rebuild_rollups() -> None:
    # SQLite cannot change a primary key in place: the rows move into a new table that takes the old one's name.
    op.create_table(
        "usage_rollups_new",
        sa.Column("bucket_start", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
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
        sa.Column("charged_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.BigInteger, nullable=False),
        sa.Column("cost_cny", sa.BigInteger, nullable=False),
        sa.Column("charged_usd", sa.BigInteger, nullable=False),
        sa.Column("charged_cny", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_start", "key_id", "user_id", "project_id", "model", "task", name="pk_usage_rollups"
        ),
        sa.CheckConstraint(
            "min(requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,"
            " charged_tokens, cost_usd, cost_cny, charged_usd, charged_cny) >= 0",
            name="ck_usage_rollups_totals_are_not_negative",
        ),
        sqlite_with_rowid=False,
    )
    op.execute(
        f"INSERT INTO usage_rollups_new ({_GROUP}, project_id, {_SUMS},"  # noqa: S608  constants of this file
        " charged_tokens, cost_usd, cost_cny, charged_usd, charged_cny)"
        f" SELECT {_GROUP}, '', {_SUMS}, 0, 0, 0, 0, 0 FROM usage_rollups"
    )
    op.drop_table("usage_rollups")
    op.rename_table("usage_rollups_new", "usage_rollups")
    op.create_index("ix_usage_rollups_key_id_bucket_start", "usage_rollups", ["key_id", "bucket_start"])
    op.create_index("ix_usage_rollups_user_id_bucket_start", "usage_rollups", ["user_id", "bucket_start"])
    op.create_index(
        "ix_usage_rollups_project_id_bucket_start", "usage_rollups", ["project_id", "bucket_start"]
    )
    op.create_index("ix_usage_rollups_model_bucket_start", "usage_rollups", ["model", "bucket_start"])


def _add_charges() -> None:
    op.create_table(
        "usage_charges",
        sa.Column("bucket_start", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("charged_tokens", sa.BigInteger, nullable=False),
        sa.Column("charged_usd", sa.BigInteger, nullable=False),
        sa.Column("charged_cny", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("bucket_start", "kind", "id", "project_id", "model", name="pk_usage_charges"),
        sa.CheckConstraint(
            "min(charged, charged_tokens, charged_usd, charged_cny) >= 0",
            name="ck_usage_charges_charges_are_not_negative",
        ),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO usage_charges SELECT bucket_start, 'user', user_id, '', model, sum(charged), 0, 0, 0"
        " FROM usage_rollups WHERE charged > 0 GROUP BY bucket_start, user_id, model"
    )
    op.execute(
        "INSERT INTO usage_charges SELECT bucket_start, 'model', model, '', '', sum(charged), 0, 0, 0"
        " FROM usage_rollups WHERE charged > 0 AND model != '' GROUP BY bucket_start, model"
    )
    op.create_index("ix_usage_charges_kind_id_bucket_start", "usage_charges", ["kind", "id", "bucket_start"])
    op.create_index(
        "ix_usage_charges_project_id_bucket_start", "usage_charges", ["project_id", "bucket_start"]
    )


def downgrade() -> None:
    """Prices and projects are lost, and what was charged in money and tokens with them."""
    for table in ("usage_retention", "usage_damage", "usage_marks", "usage_charges"):
        op.drop_table(table)
    _bring_back_rollups()
    for column in (
        "queued_ms",
        "charged_cost",
        "currency",
        "cost",
        "charged_tokens",
        "client_id",
        "project_id",
    ):
        op.drop_column("usage_records", column)


def _bring_back_rollups() -> None:
    op.create_table(
        "usage_rollups_old",
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
    sums = ", ".join(f"sum({name})" for name in _SUMS.split(", "))
    op.execute(
        f"INSERT INTO usage_rollups_old ({_GROUP}, {_SUMS})"  # noqa: S608  constants of this file
        f" SELECT {_GROUP}, {sums} FROM usage_rollups GROUP BY {_GROUP}"
    )
    op.drop_table("usage_rollups")
    op.rename_table("usage_rollups_old", "usage_rollups")
    op.create_index("ix_usage_rollups_key_id_bucket_start", "usage_rollups", ["key_id", "bucket_start"])
    op.create_index("ix_usage_rollups_user_id_bucket_start", "usage_rollups", ["user_id", "bucket_start"])
