"""The tables `events` and `webhook_deliveries`. Times are seconds since 1970 in UTC."""

from typing import Final

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
)

from lingpai.storage.metadata import metadata, partial_index

events: Final = Table(
    "events",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("type", String(64), nullable=False),
    Column("occurred_at", Double, nullable=False),
    Column("subject_kind", String(16)),
    Column("subject_id", String(300)),
    Column(
        "user_id", String(32)
    ),  # the subject's owner when it happened; no reference, as another domain has users
    Column("message", String(1000), nullable=False),
    Column("data", JSON, nullable=False),
    Column("once_key", String(64), unique=True),  # a hash of what may happen only once
    Index("ix_events_occurred_at_id", "occurred_at", "id"),
    Index("ix_events_user_id_occurred_at_id", "user_id", "occurred_at", "id"),
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("event_id", String(32), ForeignKey("events.id"), primary_key=True),
    Column("webhook", String(64), primary_key=True),
    Column(
        "state",
        String(16),
        CheckConstraint("state IN ('waiting', 'delivered', 'given_up')", name="state_is_known"),
        nullable=False,
    ),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double),
    Column("last_at", Double),
    Column("last_status", Integer),
    Column("last_error", String(200)),
    CheckConstraint("(state = 'waiting') = (next_at IS NOT NULL)", name="only_waiting_ones_are_tried"),
    partial_index(
        "ix_webhook_deliveries_waiting",
        "webhook",
        "next_at",
        where="state = 'waiting'",
    ),
)
