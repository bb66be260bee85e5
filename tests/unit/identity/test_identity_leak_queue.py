"""Reports while the database cannot be written: the answer is the same for garbage, and what works ends afterwards."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from fastapi import FastAPI
from identity_fakes import Changes, Clock, KeptTrail
from starlette.testclient import TestClient

from lingpai.identity.leak_queue import LeakQueue
from lingpai.identity.leaks import Leak, LeakedKeys, LeakReports
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.secret_routes import leak_routes
from lingpai.identity.service import Keys
from lingpai.ids import mint_credential
from lingpai.jobs.runner import JobRunner
from lingpai.principal import Principal
from lingpai.storage import database as database_module
from lingpai.storage.database import Database, sqlite_url
from lingpai.web.errors import install_error_handlers

PATH = "/api/v1/keys/leaked"


@pytest.fixture
def impatient(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The same database; whoever waits for the write lock gives up soon."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.02)
    assert database.path is not None
    opened = Database(sqlite_url(database.path))
    yield opened
    opened.close()


@pytest.fixture
def told() -> list[Leak]:
    return []


@pytest.fixture
def reports(
    impatient: Database, peppers: Peppers, changes: Changes, trail: KeptTrail, told: list[Leak], *, clock: Clock
) -> LeakReports:  # fmt: skip
    finder = LeakedKeys(impatient, peppers, on_change=changes, trail=trail)
    return LeakReports(impatient, {"sk-lp-": finder}, on_leak=told.append, clock=clock)


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Another process writes all the time."""
    with closing(sqlite3.connect(str(database.path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_answer_does_not_tell_which_work_while_the_database_is_locked_and_they_end_afterwards(
    impatient: Database,
    reports: LeakReports,
    keys: Keys,
    admin: Principal,
    told: list[Leak],
    *,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = keys.create(admin, KeyCreate(name="ci"))
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(leak_routes(reports, JobRunner(), network_of=str, answer_after_s=0.3))
    with TestClient(app) as client:
        with locked(impatient):
            works, garbage = [
                client.post(PATH, json={"keys": [token]})
                for token in (made.token, mint_credential("sk-lp-").token)
            ]
            assert (works.status_code, works.content) == (garbage.status_code, garbage.content)
            assert works.status_code == 202
            assert told == []
            assert f"wait to be ended until the database can be written: sk-lp-{made.key.id}" in caplog.text

        wait_until(lambda: len(told) == 1)

    assert keys.get(admin, "ci").is_leaked
    assert made.token[18:61] not in caplog.text


def test_what_waits_is_bounded_and_counted_once(
    impatient: Database,
    reports: LeakReports,
    keys: Keys,
    admin: Principal,
    told: list[Leak],
    *,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = [keys.create(admin, KeyCreate(name=name)) for name in ("one", "two", "three")]
    one, two, three = [each.token.encode() for each in made]

    async def report() -> None:
        queue = LeakQueue(reports, most=2, again_after_s=0.05)
        with locked(impatient):
            waiting = [asyncio.create_task(queue.take([token])) for token in (one, two)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            await queue.take([one])  # it waits already
            await queue.take([mint_credential("sk-lp-").token.encode()])  # garbage waits for nothing
            await queue.take([three])
        await asyncio.gather(*waiting)
        await queue.take([three])

    with caplog.at_level(logging.INFO):
        asyncio.run(report())

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"too many leaked credentials wait to be ended; not taken: sk-lp-{made[2].key.id}"
    ]
    assert sorted(leak.id for leak in told) == sorted(each.key.id for each in made)
    assert [keys.get(admin, name).is_leaked for name in ("one", "two", "three")] == [True] * 3


def test_answer_is_the_same_error_for_all_when_the_database_cannot_be_read(
    impatient: Database, reports: LeakReports, keys: Keys, admin: Principal
) -> None:
    made = keys.create(admin, KeyCreate(name="ci"))
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(leak_routes(reports, JobRunner(), network_of=str, answer_after_s=0.1))
    assert impatient.path is not None
    impatient.close()
    impatient.path.rename(impatient.path.with_suffix(".away"))
    with TestClient(app, raise_server_exceptions=False) as client:
        answers = [
            client.post(PATH, json={"keys": [token]})
            for token in (made.token, mint_credential("sk-lp-").token)
        ]

    assert answers[0].status_code == answers[1].status_code >= 500
