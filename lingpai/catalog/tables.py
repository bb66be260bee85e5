"""Targets that an administrator added at run time; those of the command line and lingpai.toml are not kept here."""

from sqlalchemy import Column, Float, String, Table

from lingpai.storage.metadata import metadata

targets = Table(
    "targets",
    metadata,
    Column("target", String, primary_key=True),
    Column("added_at", Float, nullable=False),
)
