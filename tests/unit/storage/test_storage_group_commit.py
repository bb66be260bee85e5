"""Writes of many callers share a transaction: each hears of its own fate, and no failure is another's."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.group_commit import GroupCommit


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    with database.write() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
    yield database
    database.close()


@pytest.fixture
def commit(database: Database) -> Iterator[GroupCommit]:
    commit = GroupCommit(database)
    yield commit
    commit.close()


def insert(id_: int):
    def job(connection: Connection) -> int:
        connection.execute(text("INSERT INTO things VALUES (:id)"), {"id": id_})
        return id_ * 10

    return job


def ids(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(text("SELECT id FROM things ORDER BY id")))


def test_result_comes_when_others_can_see_the_row(database: Database, commit: GroupCommit):
    async def play() -> None:
        assert await commit.run(insert(7)) == 70
        assert ids(database) == [7]

    asyncio.run(play())


def test_failure_undoes_its_own_writes_and_nobody_elses(database: Database, commit: GroupCommit):
    def fails(connection: Connection) -> None:
        insert(100)(connection)
        insert(1)(connection)

    async def play() -> list[object]:
        jobs = [insert(1), fails, insert(2), insert(1), insert(3)]
        return await asyncio.gather(*(commit.run(job) for job in jobs), return_exceptions=True)

    outcomes = asyncio.run(play())

    assert outcomes[0::2] == [10, 20, 30]
    assert all(isinstance(outcome, IntegrityError) for outcome in outcomes[1::2])
    assert ids(database) == [1, 2, 3]


def test_what_comes_while_a_group_is_written_makes_one_group(database: Database, commit: GroupCommit):
    """A hundred writes take two transactions: the first one's, and one for all that came meanwhile."""
    transactions = []
    began = threading.Event()

    def first(connection: Connection) -> None:
        began.wait(10)
        transactions.append(connection)

    def another(connection: Connection) -> None:
        transactions.append(connection)

    async def play() -> None:
        waiting = [asyncio.create_task(commit.run(first))]
        await asyncio.sleep(0)
        waiting += [asyncio.create_task(commit.run(another)) for _ in range(99)]
        await asyncio.sleep(0)
        began.set()
        await asyncio.gather(*waiting)

    asyncio.run(play())

    assert len(transactions) == 100
    assert len({id(connection) for connection in transactions}) == 2


def test_caller_who_gives_up_does_not_stop_the_others(database: Database, commit: GroupCommit):
    async def play() -> None:
        given_up = asyncio.create_task(commit.run(insert(1)))
        other = asyncio.create_task(commit.run(insert(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await other == 20

    asyncio.run(play())

    assert 2 in ids(database)


def test_transaction_that_cannot_begin_fails_everybody_and_the_next_one_works(
    database: Database, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
):
    async def play(most: str) -> list[object]:
        return await asyncio.gather(*(commit.run(insert(each)) for each in (1, 2)), return_exceptions=True)

    monkeypatch.setattr("lingpai.storage.database.BUSY_TIMEOUT_S", 0.1)
    locked = sqlite3.connect(database.path, isolation_level=None)
    try:
        with database.read() as connection:  # the pool's connection waits no longer than this test wants to
            connection.exec_driver_sql("PRAGMA busy_timeout = 100")
        locked.execute("BEGIN IMMEDIATE")
        outcomes = asyncio.run(play("locked"))
        locked.execute("ROLLBACK")
    finally:
        locked.close()

    assert all(isinstance(outcome, OperationalError) for outcome in outcomes)
    assert asyncio.run(play("free")) == [10, 20]


def test_it_is_on_the_disk_and_not_only_with_the_system(database: Database, commit: GroupCommit):
    """SQLite calls fsync when a group ends; the same connection is quick again afterwards."""
    levels = []

    def look(connection: Connection) -> None:
        levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

    asyncio.run(commit.run(look))
    with database.write(durable=False) as connection:
        look(connection)

    assert levels == [2, 1]  # FULL, NORMAL


def test_what_follows_is_done_although_the_caller_has_given_up(commit: GroupCommit):
    """Who hangs up while a token is being revoked has revoked it, also where it is remembered."""
    told: list[int] = []

    async def play() -> None:
        given_up = asyncio.create_task(commit.run(insert(1), told.append))
        await asyncio.sleep(0)
        given_up.cancel()
        await commit.run(insert(2))

    asyncio.run(play())

    assert told == [10]


def test_nothing_follows_from_a_failure(commit: GroupCommit):
    """What a failed job would have returned, nobody is told."""
    told: list[int] = []

    async def play() -> list[object]:
        jobs = [commit.run(insert(1), told.append) for _ in range(2)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    outcomes = asyncio.run(play())

    assert told == [10]
    assert isinstance(outcomes[1], IntegrityError)


def test_failure_of_what_follows_is_its_callers_alone(commit: GroupCommit):
    """The others hear of their own fate, and the next group is written."""

    def fails(_: int) -> None:
        raise RuntimeError("cannot be told")

    async def play() -> list[object]:
        waiting = [commit.run(insert(1), fails), commit.run(insert(2))]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        return [*outcomes, await commit.run(insert(3))]

    outcomes = asyncio.run(play())

    assert isinstance(outcomes[0], RuntimeError)
    assert outcomes[1:] == [20, 30]


def test_transaction_that_sqlite_gives_up_fails_everybody(database: Database, commit: GroupCommit):
    """Where SQLite rolls all back by itself, as for some full disks, nothing is stored, and everybody hears of it."""

    def is_rolled_back(connection: Connection) -> None:
        insert(100)(connection)
        connection.connection.dbapi_connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    async def play() -> list[object]:
        jobs = [insert(0), insert(1), is_rolled_back, insert(2)]  # the first one is a group of its own
        return await asyncio.gather(*(commit.run(job) for job in jobs), return_exceptions=True)

    outcomes = asyncio.run(play())

    assert outcomes[0] == 0
    assert all(isinstance(outcome, Exception) for outcome in outcomes[1:])
    assert ids(database) == [0]
    assert asyncio.run(commit.run(insert(3))) == 30
