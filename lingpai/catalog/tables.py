"""Targets that an administrator added at run time; those of the command line and lingpai.toml are not kept here."""

from typing import Final

from sqlalchemy import Column, Double, Float, LargeBinary, String, Table

from lingpai.storage.metadata import metadata
from lingpai.storage.sealed_columns import SealedColumn

targets = Table(
    "targets",
    metadata,
    Column("target", String, primary_key=True),
    Column("added_at", Float, nullable=False),
    # The provider's key; NULL: there is none. It is sealed for this very target.
    Column("sealed_key", LargeBinary),
    Column("key_hint", String(16)),
    Column("key_set_at", Double),
)

SEALED_KEYS: Final = SealedColumn(
    table=targets, id_column="target", column="sealed_key", purpose="provider-key", what="provider keys"
)
