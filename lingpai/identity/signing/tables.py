"""The table `signing_keys`: what a program signs its requests with. Times are Unix seconds."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Double, ForeignKey, Index, LargeBinary, String, Table

from lingpai.storage.metadata import metadata
from lingpai.storage.sealed_columns import SealedColumn

signing_keys: Final = Table(
    "signing_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # the `keyid` of a signature
    Column("name", String(64), nullable=False),
    # It signs for an API key or for a client.
    Column("key_id", String(12), ForeignKey("api_keys.id")),
    Column("client_id", String(12), ForeignKey("clients.id")),
    Column(
        "algorithm",
        String(16),
        CheckConstraint("algorithm IN ('ed25519', 'hmac-sha256')", name="algorithm_is_known"),
        nullable=False,
    ),
    Column("public_key", LargeBinary),  # of Ed25519, 32 bytes
    Column("sealed_secret", LargeBinary),  # of HMAC; encrypted, because verifying needs the secret itself
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    CheckConstraint("(key_id IS NULL) <> (client_id IS NULL)", name="signs_for_key_or_client"),
    CheckConstraint(
        "(algorithm = 'ed25519') = (public_key IS NOT NULL) AND (public_key IS NULL) <> (sealed_secret IS NULL)",
        name="material_fits_algorithm",
    ),
    Index("ix_signing_keys_key_id", "key_id"),
    Index("ix_signing_keys_client_id", "client_id"),
)

SEALED_SECRETS: Final = SealedColumn(
    table=signing_keys,
    id_column="id",
    column="sealed_secret",
    purpose="signing key",
    what="secrets of signing keys",
)
