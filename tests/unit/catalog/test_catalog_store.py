"""Targets in a real database."""

import pytest

from lingpai.catalog.store import SqlTargetStore
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import NoTrail


@pytest.fixture
def database(tmp_path):
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    yield database
    database.close()


def test_targets_are_kept_in_the_order_they_were_added(database):
    for target in ("b", "c", "a"):
        SqlTargetStore(database, trail=NoTrail()).add(None, target)

    assert SqlTargetStore(database, trail=NoTrail()).all() == ["b", "c", "a"]


def test_adding_twice_and_removing_what_is_not_there_change_nothing(database):
    store = SqlTargetStore(database, trail=NoTrail())
    store.add(None, "a")

    store.add(None, "a")
    store.remove(None, "b")

    assert store.all() == ["a"]


def test_removed_target_is_gone(database):
    store = SqlTargetStore(database, trail=NoTrail())
    store.add(None, "a")
    store.add(None, "it's; DROP TABLE targets")

    store.remove(None, "a")

    assert store.all() == ["it's; DROP TABLE targets"]
