"""How far the database is behind, and what an administrator is told of the journal."""

import asyncio
from dataclasses import dataclass

import pytest

from lingpai.metering.journal import Journal
from lingpai.metering.journal_routes import journal_routes
from lingpai.metering.lag import JournalLag
from lingpai.metering.loader import SqliteLoader
from lingpai.metering.segments import START, Position
from lingpai.metering.settings import MeteringSettings
from lingpai.metering.supervisor import IngesterProcess
from lingpai.principal import Principal

ADMIN = Principal("usr_root", "admin", "admin", scopes=frozenset({"usage:read"}))
BOB = Principal("usr_bob", "bob", "member", scopes=frozenset({"usage:read"}))


@dataclass
class Ingester:
    """One that says what it is told to say."""

    position: Position = START
    loaded: int = 0
    skipped: int = 0


async def write(journal, make_record, count):
    for _ in range(count):
        journal.append(make_record(), lambda ok: None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_what_is_written_and_not_loaded_is_counted(journal_directory, make_record):
    """In records and bytes, across segments; what a killed ingester did not say is put right."""

    async def scenario():
        settings = MeteringSettings(fsync="never", segment_bytes=500)
        journal, ingester = Journal(journal_directory, asyncio.get_running_loop(), settings), Ingester()
        lag = JournalLag(journal, ingester)
        assert lag.records() == 0
        await write(journal, make_record, 5)
        between = journal.position
        await write(journal, make_record, 5)
        assert lag.records() == 10
        sizes = [path.stat().st_size for path in journal_directory.glob("*.journal")]
        assert lag.bytes() == sum(sizes)

        ingester.position, ingester.loaded = between, 5
        assert lag.records() == 5
        assert 0 < lag.bytes() < sum(sizes)

        ingester.position, ingester.loaded = journal.position, 7
        assert (lag.records(), lag.bytes()) == (0, 0)
        await write(journal, make_record, 2)
        assert lag.records() == 2
        journal.close()

    asyncio.run(scenario())


def test_a_real_ingester_catches_up(journal_directory, database, database_path, make_record):
    """The figures fall to nothing."""

    async def scenario():
        journal = Journal(journal_directory, asyncio.get_running_loop(), MeteringSettings())
        ingester = IngesterProcess(journal_directory, database_path)
        lag = JournalLag(journal, ingester)
        await write(journal, make_record, 20)
        assert lag.records() == 20
        await ingester.start()
        assert await ingester.wait_for(journal.position, 10)
        assert (lag.records(), lag.bytes(), lag.skipped(), ingester.loaded) == (0, 0, 0, 20)
        await ingester.stop()
        journal.close()

    asyncio.run(scenario())


@pytest.fixture
def lag(journal_directory):
    @dataclass
    class Journaled:
        written: int = 3
        position: Position = (1, 100)
        directory = journal_directory

    return JournalLag(Journaled(written=0), Ingester())


def test_an_administrator_learns_of_damage_and_of_what_waits(database, database_path, lag, ask):
    """After the log is long gone."""
    loader = SqliteLoader(database_path)
    loader.load(
        [], (1, 1), damage=[(1.0, 7, "usage journal: segment 7 is damaged"), (2.0, 8, "segment 8 too")]
    )
    loader.close()

    answer = ask(journal_routes(database, lag, lambda: False), ADMIN, "/api/v1/usage/journal")

    assert answer.json() == {
        "is_healthy": False,
        "waiting_records": 0,
        "waiting_bytes": 0,
        "kept_since": None,
        "damage": [
            {"found_at": "1970-01-01T00:00:02Z", "segment": 8, "description": "segment 8 too"},
            {
                "found_at": "1970-01-01T00:00:01Z",
                "segment": 7,
                "description": "usage journal: segment 7 is damaged",
            },
        ],
        "damage_count": 2,
    }
    assert answer.headers["cache-control"] == "no-store"


def test_a_member_does_not(database, lag, ask):
    """It is the operator's business."""
    answer = ask(journal_routes(database, lag, lambda: True), BOB, "/api/v1/usage/journal")

    assert answer.status_code == 403
