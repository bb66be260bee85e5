"""Runs migrations with Alembic. Loaded only when there is one to run: see `lingpai.storage.migrate`."""

import logging

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from lingpai.storage.migrate import migrations_folder


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, made in code: the product has no ``alembic.ini``."""
    config = Config()
    # Alembic's options know `%(name)s`, so that a percent sign in a path has to be doubled
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str) -> None:
    """Bring the tables to `revision` within the caller's transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its INFO lines explain Alembic, not the upgrade
    command.upgrade(alembic_config(connection), revision)
