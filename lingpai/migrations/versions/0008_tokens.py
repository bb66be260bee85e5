"""OAuth clients, their tokens and their usage, and two secrets at a time for clients and API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_GROUP = "bucket_start, key_id, user_id, project_id, model, task"
_SUMS = (
    "requests, errors, refused, charged, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,"
    " charged_tokens, cost_usd, cost_cny, charged_usd, charged_cny"
)


def upgrade() -> None:
    op.create_table(
        "clients",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("project_id", sa.String(32), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary),
        sa.Column("pepper_version", sa.Integer),
        sa.Column("hint", sa.String(16)),
        sa.Column("old_secret_hmac", sa.LargeBinary),
        sa.Column("old_pepper_version", sa.Integer),
        sa.Column("old_hint", sa.String(16)),
        sa.Column("old_expires_at", sa.Double),
        sa.Column("rotated_at", sa.Double),
        sa.Column("grants", sa.JSON, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("allowed_ips", sa.JSON, nullable=False),
        sa.Column("signature_required", sa.Boolean, nullable=False),
        sa.Column("token_lifetime_s", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("disabled_at", sa.Double),
        sa.Column("deleted_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("last_used_ip", sa.String(45)),
        sa.CheckConstraint(
            "deleted_at IS NULL OR secret_hmac IS NULL", name="ck_clients_deleted_client_has_no_secret"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_clients_project_id_projects"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_clients_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_clients"),
    )
    op.create_index("ix_clients_created_at_id", "clients", ["created_at", "id"])
    op.create_index("ix_clients_project_id_created_at_id", "clients", ["project_id", "created_at", "id"])
    op.create_index(
        "uq_clients_live_name_of_user",
        "clients",
        ["user_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "token_families",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("client_id", sa.String(12)),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        sa.Column("revoked_because", sa.String(64)),
        sa.Column("address", sa.String(45)),
        sa.Column("user_agent", sa.String(200)),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_token_families_client_id_clients"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_token_families_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_token_families"),
    )
    op.create_index("ix_token_families_client_id", "token_families", ["client_id"])
    op.create_index("ix_token_families_expires_at", "token_families", ["expires_at"])
    op.create_index("ix_token_families_user_id", "token_families", ["user_id"])
    op.create_table(
        "access_tokens",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary),
        sa.Column("pepper_version", sa.Integer),
        sa.Column("client_id", sa.String(12)),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("family_id", sa.String(32)),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_access_tokens_client_id_clients"),
        sa.ForeignKeyConstraint(
            ["family_id"], ["token_families.id"], name="fk_access_tokens_family_id_token_families"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_access_tokens_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_access_tokens"),
    )
    op.create_index("ix_access_tokens_client_id_expires_at", "access_tokens", ["client_id", "expires_at"])
    op.create_index("ix_access_tokens_expires_at", "access_tokens", ["expires_at"])
    op.create_index("ix_access_tokens_family_id", "access_tokens", ["family_id"])
    op.create_index("ix_access_tokens_user_id_expires_at", "access_tokens", ["user_id", "expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary, nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("family_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
        sa.Column("successor_id", sa.String(12)),
        sa.CheckConstraint(
            "(used_at IS NULL) = (successor_id IS NULL)", name="ck_refresh_tokens_used_token_has_successor"
        ),
        sa.ForeignKeyConstraint(
            ["family_id"], ["token_families.id"], name="fk_refresh_tokens_family_id_token_families"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_family_id_used_at", "refresh_tokens", ["family_id", "used_at"])
    op.add_column("api_keys", sa.Column("old_secret_hmac", sa.LargeBinary))
    op.add_column("api_keys", sa.Column("old_pepper_version", sa.Integer))
    op.add_column("api_keys", sa.Column("old_hint", sa.String(16)))
    op.add_column("api_keys", sa.Column("old_expires_at", sa.Double))
    op.add_column("api_keys", sa.Column("rotated_at", sa.Double))
    op.add_column("api_keys", sa.Column("signature_required", sa.Boolean))
    by_client = ["bucket_start", "key_id", "user_id", "client_id", "project_id", "model", "task"]
    _rebuild_rollups(by_client, f"{_GROUP}, {_SUMS}, '' FROM usage_rollups")


def _rebuild_rollups(key: list[str], rows: str) -> None:
    """Sums by other columns. SQLite cannot change a primary key in place: a new table takes the old one's name."""
    group = [sa.Column(name, sa.String, nullable=False) for name in key[1:]]
    sums = [sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS.split(", ")]
    op.create_table(
        "usage_rollups_new",
        sa.Column("bucket_start", sa.BigInteger, nullable=False),
        *group,
        *sums,
        sa.PrimaryKeyConstraint(*key, name="pk_usage_rollups"),
        sa.CheckConstraint(f"min({_SUMS}) >= 0", name="ck_usage_rollups_totals_are_not_negative"),
        sqlite_with_rowid=False,
    )
    columns = [*_GROUP.split(", "), *_SUMS.split(", ")]
    columns += [name for name in key if name not in columns]
    op.execute(f"INSERT INTO usage_rollups_new ({', '.join(columns)}) SELECT {rows}")
    op.drop_table("usage_rollups")
    op.rename_table("usage_rollups_new", "usage_rollups")
    for name in key[1:-1]:
        op.create_index(f"ix_usage_rollups_{name}_bucket_start", "usage_rollups", [name, "bucket_start"])


def downgrade() -> None:
    sums = ", ".join(f"sum({name})" for name in _SUMS.split(", "))
    _rebuild_rollups(_GROUP.split(", "), f"{_GROUP}, {sums} FROM usage_rollups GROUP BY {_GROUP}")
    op.drop_column("api_keys", "signature_required")
    op.drop_column("api_keys", "rotated_at")
    op.drop_column("api_keys", "old_expires_at")
    op.drop_column("api_keys", "old_hint")
    op.drop_column("api_keys", "old_pepper_version")
    op.drop_column("api_keys", "old_secret_hmac")
    op.drop_table("refresh_tokens")
    op.drop_table("access_tokens")
    op.drop_table("token_families")
    op.drop_table("clients")
