"""The limits of models, and of users on models. Those of keys, users and projects stand in the rows of these."""

from typing import Final

from sqlalchemy import JSON, CheckConstraint, Column, Double, String, Table

from lingpai.storage.metadata import metadata

limits: Final = Table(
    "limits",
    metadata,
    Column(
        "kind",
        String(16),
        CheckConstraint("kind IN ('model', 'user_model')", name="kind_is_known"),
        primary_key=True,
    ),
    # The id of the model; for user_model the user's id (or `*`), a blank, and the id of the model.
    Column("id", String(300), primary_key=True),
    # A list of texts; an empty one says that there is no limit, whatever the settings say.
    Column("limits", JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
)
