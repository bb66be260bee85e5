"""A usage record to vary, a migrated database, a journal written to disk."""

import asyncio
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lingpai.metering.journal import Journal
from lingpai.metering.loader import SqliteLoader
from lingpai.metering.records import UsageRecord
from lingpai.metering.settings import MeteringSettings
from lingpai.storage.database import Database
from lingpai.web.errors import install_error_handlers

_FIELDS = {
    "request_id": "req_1",
    "key_id": "4fK3aaaaaaaa",
    "user_id": "usr_ada",
    "model": "lingpai/eliza",
    "backend": "demo",
    "task": "chat",
    "endpoint": "/v1/chat/completions",
    "started_at": 1_800_000_000.0,
    "first_byte_ms": 12.5,
    "duration_ms": 45.5,
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "cached_tokens": 1,
    "reasoning_tokens": 2,
    "counted": "reported",
    "status": 200,
    "end_reason": "complete",
    "charged": 1,
    "retries": 0,
    "client_address": "127.0.0.1",
    "project_id": "prj_ada",
    "client_id": "",
    "charged_tokens": 30,
    "cost": 1500,
    "currency": "USD",
    "charged_cost": 1500,
    "queued_ms": 0.5,
}


@pytest.fixture
def make_record():
    return lambda **changes: UsageRecord(**(_FIELDS | changes))


@pytest.fixture
def journal_directory(tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    return directory


@pytest.fixture
def write_segment(journal_directory):
    """Writes records as one new segment of the journal; its path."""

    def write(records) -> Path:
        async def scenario() -> Path:
            journal = Journal(journal_directory, asyncio.get_running_loop(), MeteringSettings(fsync="never"))
            for record in records:
                journal.append(record, lambda recorded: None)
            journal.close()
            return max(journal_directory.glob("*.journal"))

        return asyncio.run(scenario())

    return write


@pytest.fixture
def database_path(tmp_path):
    return tmp_path / "lingpai.db"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A new database, to be copied: to migrate takes longer than most of the tests."""
    path = tmp_path_factory.mktemp("migrated") / "lingpai.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def database(migrated, database_path):
    shutil.copy(migrated, database_path)
    database = Database(f"sqlite:///{database_path}")
    yield database
    database.close()


@pytest.fixture
def load(database, database_path, make_record):
    """Loads one record for each dictionary of changes, as the ingester would."""
    loader = SqliteLoader(database_path)
    yield lambda *changes: loader.load([make_record(**each) for each in changes], (1, 1))
    loader.close()


class Names:
    """Two users with a key, a client and a project each; one more key is in the records only."""

    def __init__(self):
        self.keys = {"4fK3aaaaaaaa": ("laptop", "usr_ada"), "bobs": ("batch", "usr_bob")}
        self.clients = {"app": ("nightly", "usr_ada"), "bobs-app": ("indexer", "usr_bob")}
        self.users = {"usr_ada": "ada", "usr_bob": "bob"}
        self.projects = {"prj_ada": ("ada", "usr_ada"), "prj_bob": ("=bob", "usr_bob")}
        self.shared = {}
        """By user: the projects in which they see everybody's usage."""

    def key_names(self, key_ids):
        return {key_id: self.keys[key_id][0] for key_id in key_ids if key_id in self.keys}

    def client_names(self, client_ids):
        return {id_: self.clients[id_][0] for id_ in client_ids if id_ in self.clients}

    def user_names(self, user_ids):
        return {user_id: self.users[user_id] for user_id in user_ids if user_id in self.users}

    def project_names(self, project_ids):
        return {id_: self.projects[id_][0] for id_ in project_ids if id_ in self.projects}

    def find_key(self, text, *, owner, seen_by):
        return self._find(self.keys, text, owner or self._unless_around(seen_by))

    def find_client(self, text, *, owner, seen_by):
        return self._find(self.clients, text, owner or self._unless_around(seen_by))

    def find_user(self, text, *, seen_by):
        users = {id_: (name, id_) for id_, name in self.users.items()}
        return self._find(users, text, self._unless_around(seen_by))

    def find_project(self, text, *, seen_by):
        return self._find(self.projects, text, self._unless_around(seen_by))

    def shared_projects(self, user_id):
        return self.shared.get(user_id, ())

    def _unless_around(self, user_id):
        """Who shares a project sees both users."""
        return None if user_id in self.shared else user_id

    @staticmethod
    def _find(things, text, user_id):
        return next(
            (i for i, (name, owner) in things.items() if text in (i, name) and user_id in (None, owner)), None
        )


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def ask():
    """Asks a router as a caller: the raw answer."""

    def get(router, caller, path, **parameters):
        async def authenticate(request):
            return caller

        app = FastAPI()
        install_error_handlers(app)
        app.state.authenticate = authenticate
        app.include_router(router)
        with TestClient(app) as client:
            return client.get(path, params=parameters)

    return get
