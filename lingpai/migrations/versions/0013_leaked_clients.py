"""Why a client is disabled."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clients", sa.Column("disabled_because", sa.String(64)))


def downgrade() -> None:
    op.drop_column("clients", "disabled_because")
