"""Limits of models, and of users on models."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("id", sa.String(300), nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_limits"),
        sa.CheckConstraint("kind IN ('model', 'user_model')", name="ck_limits_kind_is_known"),
    )


def downgrade() -> None:
    op.drop_table("limits")
