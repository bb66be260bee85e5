"""The tables `clients`, `token_families`, `access_tokens` and `refresh_tokens`. Times are Unix seconds."""

from typing import Final

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)

from lingpai.storage.metadata import metadata, partial_index

# A deleted client stays, without its secret, because usage and audit go on showing its name.
clients: Final = Table(
    "clients",
    metadata,
    Column("id", String(12), primary_key=True),  # stands in `cl-lp-<id>` and in the client secret
    Column("name", String(64), nullable=False),
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False),
    Column("project_id", String(32), ForeignKey("projects.id"), nullable=False),
    # NULL: a public client, or a deleted one
    Column("secret_hmac", LargeBinary),
    Column("pepper_version", Integer),
    Column("hint", String(16)),
    # The secret before the last rotation, which works until `old_expires_at`.
    Column("old_secret_hmac", LargeBinary),
    Column("old_pepper_version", Integer),
    Column("old_hint", String(16)),
    Column("old_expires_at", Double),
    Column("rotated_at", Double),
    Column("grants", JSON, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("allowed_ips", JSON, nullable=False),
    Column("signature_required", Boolean, nullable=False),
    Column("token_lifetime_s", Integer),  # NULL: `oauth.access_token_lifetime`
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("disabled_at", Double),
    Column("disabled_because", String(64)),  # NULL: somebody wanted it so
    Column("deleted_at", Double),
    Column("last_used_at", Double),
    Column("last_used_ip", String(45)),
    CheckConstraint("deleted_at IS NULL OR secret_hmac IS NULL", name="deleted_client_has_no_secret"),
    partial_index(
        "uq_clients_live_name_of_user",
        "user_id",
        "name",
        is_unique=True,
        where="deleted_at IS NULL",
    ),
    Index("ix_clients_created_at_id", "created_at", "id"),
    Index("ix_clients_project_id_created_at_id", "project_id", "created_at", "id"),
)

# What a user agreed to once: all tokens that came out of it, however often they were refreshed (RFC 9700 section 4.14).
token_families: Final = Table(
    "token_families",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("client_id", String(12), ForeignKey("clients.id")),  # NULL: the built-in public client
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("revoked_because", String(64)),
    Column("address", String(45)),
    Column("user_agent", String(200)),
    Index("ix_token_families_user_id", "user_id"),
    Index("ix_token_families_client_id", "client_id"),
    Index("ix_token_families_expires_at", "expires_at"),
)

# A revoked access token is deleted.
access_tokens: Final = Table(
    "access_tokens",
    metadata,
    Column("id", String(12), primary_key=True),  # the public id inside the token; `jti` of a JWT
    Column("secret_hmac", LargeBinary),  # NULL: a JWT, which its signature proves
    Column("pepper_version", Integer),
    Column("client_id", String(12), ForeignKey("clients.id")),  # NULL: the built-in public client
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False),
    Column("family_id", String(32), ForeignKey("token_families.id")),  # NULL: of a client on its own behalf
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Index("ix_access_tokens_family_id", "family_id"),
    Index("ix_access_tokens_client_id_expires_at", "client_id", "expires_at"),
    Index("ix_access_tokens_user_id_expires_at", "user_id", "expires_at"),
    Index("ix_access_tokens_expires_at", "expires_at"),
)

# Used ones stay until their family ends, so that using one again shows.
refresh_tokens: Final = Table(
    "refresh_tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("family_id", String(32), ForeignKey("token_families.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Column("successor_id", String(12)),
    CheckConstraint("(used_at IS NULL) = (successor_id IS NULL)", name="used_token_has_successor"),
    # A family may have thousands of used ones; the one that is not is found at once.
    Index("ix_refresh_tokens_family_id_used_at", "family_id", "used_at"),
)
