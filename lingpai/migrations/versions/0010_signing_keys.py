"""Keys that requests are signed with."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(12)),
        sa.Column("client_id", sa.String(12)),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("sealed_secret", sa.LargeBinary),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.CheckConstraint(
            "(algorithm = 'ed25519') = (public_key IS NOT NULL) AND (public_key IS NULL) <> (sealed_secret IS NULL)",
            name="ck_signing_keys_material_fits_algorithm",
        ),
        sa.CheckConstraint(
            "(key_id IS NULL) <> (client_id IS NULL)", name="ck_signing_keys_signs_for_key_or_client"
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_signing_keys_client_id_clients"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_signing_keys_key_id_api_keys"),
        sa.PrimaryKeyConstraint("id", name="pk_signing_keys"),
        sa.CheckConstraint(
            "algorithm IN ('ed25519', 'hmac-sha256')", name="ck_signing_keys_algorithm_is_known"
        ),
    )
    op.create_index("ix_signing_keys_client_id", "signing_keys", ["client_id"])
    op.create_index("ix_signing_keys_key_id", "signing_keys", ["key_id"])


def downgrade() -> None:
    op.drop_table("signing_keys")
