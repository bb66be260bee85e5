"""Limits of models in a database."""

import pytest
from quota_doubles import VirtualClock
from sqlalchemy import select

from lingpai.quotas.store import SqlLimitStore
from lingpai.quotas.tables import limits
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import NoTrail

MODEL = ("model", "acme/shout")
ALICE = ("user_model", "usr_alice acme/shout")


@pytest.fixture
def database(tmp_path):
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database):
    return SqlLimitStore(database, VirtualClock(1000.0), trail=NoTrail())


def test_what_was_set_is_there_after_a_restart(database, store):
    store.replace(MODEL, ("5/day", "8 concurrent"), caller=None)
    store.replace(ALICE, (), caller=None)

    assert SqlLimitStore(database, trail=NoTrail()).all() == {MODEL: ("5/day", "8 concurrent"), ALICE: ()}


def test_other_limits_take_the_place_of_those_before(database, store):
    store.replace(MODEL, ("5/day",), caller=None)
    store.replace(MODEL, ("7/day",), caller=None)

    assert store.all() == {MODEL: ("7/day",)}
    with database.read() as connection:
        assert connection.scalars(select(limits.c.updated_at)).all() == [1000.0]


def test_none_forgets_what_was_set(store):
    store.replace(MODEL, ("5/day",), caller=None)
    store.replace(ALICE, ("7/day",), caller=None)

    store.replace(MODEL, None, caller=None)
    store.replace(("model", "acme/unknown"), None, caller=None)

    assert store.all() == {ALICE: ("7/day",)}
