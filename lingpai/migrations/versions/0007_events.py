"""Events, and how far they have come on their way to webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("occurred_at", sa.Double, nullable=False),
        sa.Column("subject_kind", sa.String(16), nullable=True),
        sa.Column("subject_id", sa.String(300), nullable=True),
        sa.Column("user_id", sa.String(32), nullable=True),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("once_key", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("once_key", name="uq_events_once_key"),
    )
    op.create_index("ix_events_occurred_at_id", "events", ["occurred_at", "id"])
    op.create_index("ix_events_user_id_occurred_at_id", "events", ["user_id", "occurred_at", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.String(32), nullable=False),
        sa.Column("webhook", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double, nullable=True),
        sa.Column("last_at", sa.Double, nullable=True),
        sa.Column("last_status", sa.Integer, nullable=True),
        sa.Column("last_error", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("event_id", "webhook", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name="fk_webhook_deliveries_event_id_events"),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'given_up')", name="ck_webhook_deliveries_state_is_known"
        ),
        sa.CheckConstraint(
            "(state = 'waiting') = (next_at IS NOT NULL)",
            name="ck_webhook_deliveries_only_waiting_ones_are_tried",
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["webhook", "next_at"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("events")
