"""A usage record to vary, a migrated database, a journal written to disk."""

import asyncio
from pathlib import Path

import pytest

from lingpai.metering.journal import Journal
from lingpai.metering.records import UsageRecord
from lingpai.metering.settings import MeteringSettings
from lingpai.storage.database import Database

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


@pytest.fixture
def database(database_path):
    database = Database(f"sqlite:///{database_path}")
    database.migrate()
    yield database
    database.close()
