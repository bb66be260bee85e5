"""A database with every table, secrets in files, and a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from secrets_fakes import Clock

from lingpai.domains import metadata
from lingpai.identity.peppers import Peppers
from lingpai.principal import Principal
from lingpai.secrets.token_keys import TokenKeys
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.sealing import RootKeys, Sealer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate(metadata)
    yield database
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peppers(tmp_path: Path, clock: Clock) -> Peppers:
    return Peppers.from_file(tmp_path / "secrets" / "pepper.json", clock=clock)


@pytest.fixture
def root_keys(tmp_path: Path, clock: Clock) -> RootKeys:
    return RootKeys.from_file(tmp_path / "secrets" / "root.json", clock=clock)


@pytest.fixture
def sealer(root_keys: RootKeys) -> Sealer:
    return Sealer(root_keys)


@pytest.fixture
def token_keys(database: Database, sealer: Sealer, clock: Clock) -> TokenKeys:
    return TokenKeys(database, sealer, clock=clock)


@pytest.fixture
def admin() -> Principal:
    return Principal("usr_1", "admin", "admin")
