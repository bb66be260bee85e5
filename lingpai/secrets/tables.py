"""The table `token_signing_keys`: what signs JWT access tokens. Times are Unix seconds."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Double, LargeBinary, String, Table

from lingpai.storage.metadata import metadata
from lingpai.storage.sealed_columns import SealedColumn

token_signing_keys: Final = Table(
    "token_signing_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # the `kid` of a JWT
    Column(
        "algorithm",
        String(8),
        CheckConstraint("algorithm IN ('EdDSA', 'RS256')", name="algorithm_is_known"),
        nullable=False,
    ),
    Column("public_key", LargeBinary, nullable=False),  # SubjectPublicKeyInfo, DER
    Column("sealed_private_key", LargeBinary, nullable=False),  # PKCS #8, DER
    Column("created_at", Double, nullable=False),  # published from here on
    Column("use_from", Double, nullable=False),
    Column("verify_until", Double),  # NULL: it has no successor
)

SEALED_PRIVATE_KEYS: Final = SealedColumn(
    table=token_signing_keys,
    id_column="id",
    column="sealed_private_key",
    purpose="token-signing-key",
    what="signing keys",
)
