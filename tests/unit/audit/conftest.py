"""A migrated database, a trail in it, and the keys that sign it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_world import NOW, Clock, World

from lingpai.audit.keys import ensure_keys
from lingpai.storage.database import Database, sqlite_url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "lingpai.db"
    database = Database(sqlite_url(path))
    database.migrate()
    database.close()
    return path


@pytest.fixture
def world(migrated_file: Path, tmp_path: Path) -> Iterator[World]:
    """The data directory of a server with a trail and nothing in it yet."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copyfile(migrated_file, data / "lingpai.db")
    ensure_keys(data / "secrets" / "audit.json")
    world = World(data, Clock(NOW))
    yield world
    world.close()
