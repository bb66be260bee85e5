"""Keys written straight into the database are keys."""

from pathlib import Path

import pytest

from bench.key_rows import insert_keys
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import peppers_from_file
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.service import Keys, Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.storage.database import Database, sqlite_url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a stopped server with one key."""
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    peppers = peppers_from_file(tmp_path / "secrets" / "pepper.json")
    shared = {"on_change": lambda kind, id_: None, "validate_limit": str, "default_limits": ()}
    users = Users(database, **shared)
    users.ensure_admin()
    keys = Keys(database, peppers=peppers, **shared)
    keys.create(users.local_administrator(), KeyCreate(name="template", limits=["1000/day"]))
    database.close()
    return tmp_path


def test_real_keys_are_recognised_and_filler_keys_are_there(data: Path) -> None:
    tokens = insert_keys(data, "template", real=3, filler=5000)

    database = Database(sqlite_url(data / "lingpai.db"))
    keyring = Keyring(SqlCredentialStore(database), peppers_from_file(data / "secrets" / "pepper.json"))
    principals = [keyring.load(token.encode()) for token in tokens]
    with database.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM api_keys").scalar_one()
    database.close()
    assert [principal.key_limits for principal in principals if principal] == [("1000/day",)] * 3
    assert count == 5004
