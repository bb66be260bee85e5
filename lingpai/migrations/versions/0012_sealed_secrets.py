"""Provider keys of targets, and the keys that sign tokens; both sealed."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("targets", sa.Column("sealed_key", sa.LargeBinary))
    op.add_column("targets", sa.Column("key_hint", sa.String(16)))
    op.add_column("targets", sa.Column("key_set_at", sa.Double))
    op.create_table(
        "token_signing_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("algorithm", sa.String(8), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("use_from", sa.Double, nullable=False),
        sa.Column("verify_until", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_token_signing_keys"),
        sa.CheckConstraint(
            "algorithm IN ('EdDSA', 'RS256')", name="ck_token_signing_keys_algorithm_is_known"
        ),
    )


def downgrade() -> None:
    op.drop_table("token_signing_keys")
    op.drop_column("targets", "key_set_at")
    op.drop_column("targets", "key_hint")
    op.drop_column("targets", "sealed_key")
