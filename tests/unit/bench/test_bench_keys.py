"""Keys written straight into the database are keys."""

from pathlib import Path

import pytest

from bench.key_rows import insert_history, insert_keys
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.service import Keys, Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.metering.rebuild import Rebuild
from lingpai.metering.store import SqlUsageStore
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import NoTrail

NOW = 1_800_000_000.0
SHARED = {"on_change": lambda *_: None, "validate_limit": str, "default_limits": (), "trail": NoTrail()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a stopped server with one key."""
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    peppers = Peppers.from_file(tmp_path / "secrets" / "pepper.json")
    users = Users(database, **SHARED)
    users.ensure_admin()
    keys = Keys(database, peppers=peppers, **SHARED)
    keys.create(users.local_administrator(), KeyCreate(name="template", limits=["1000/day"]))
    database.close()
    return tmp_path


def test_real_keys_are_recognised_and_filler_keys_are_there(data: Path) -> None:
    tokens = insert_keys(data, "template", real=3, filler=5000)

    database = Database(sqlite_url(data / "lingpai.db"))
    keyring = Keyring(SqlCredentialStore(database), Peppers.from_file(data / "secrets" / "pepper.json"))
    principals = [keyring.load(token.encode()) for token in tokens]
    with database.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM api_keys").scalar_one()
    database.close()
    assert [principal.key_limits for principal in principals if principal] == [("1000/day",)] * 3
    assert count == 5004


def test_history_is_charged_to_the_limited_user_and_model_as_the_server_counts_it(data: Path) -> None:
    """Sums and records agree: a rebuild finds nothing to repair."""
    insert_keys(data, "template", real=3, filler=500)

    calls = insert_history(data, "template", model="demo/echo", since=NOW - 86_400, until=NOW)

    database = Database(sqlite_url(data / "lingpai.db"))
    store = SqlUsageStore(database)
    user = Users(database, **SHARED).local_administrator()
    charged = [
        store.charged_since(subject, "requests", NOW - 90_000)
        for subject in (("model", "demo/echo"), ("user", user.user_id))
    ]
    report = Rebuild(database, trail=NoTrail()).run()
    database.close()
    assert charged == [calls, calls] == [504, 504]
    assert (report.repaired, report.marks_repaired) == ((), 0)
