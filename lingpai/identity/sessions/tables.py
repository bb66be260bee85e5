"""The tables `sessions`, `sign_in_places` and `invitations`. Times are Unix seconds."""

from typing import Final

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table

from lingpai.storage.metadata import metadata

# One that has ended is deleted.
sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", String(12), primary_key=True),  # the public id inside the cookie
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("address", String(45)),
    Column("user_agent", String(200)),
    Index("ix_sessions_user_id", "user_id"),
    Index("ix_sessions_expires_at", "expires_at"),
)

# Where a user has signed in: the few networks that were last used. Whoever guesses from elsewhere does not slow these down.
sign_in_places: Final = Table(
    "sign_in_places",
    metadata,
    Column("user_id", String(32), ForeignKey("users.id"), primary_key=True),
    Column("network", String(45), primary_key=True),  # an IPv4 address, or a /64 of IPv6
    Column("last_used_at", Double, nullable=False),
)

# One that was accepted or replaced is deleted.
invitations: Final = Table(
    "invitations",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)
