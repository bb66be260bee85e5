"""Targets in a real database."""

import pytest

from lingpai.catalog.store import SqlTargetStore
from lingpai.storage.database import Database, sqlite_url


@pytest.fixture
def database(tmp_path):
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    yield database
    database.close()


def test_targets_are_kept_in_the_order_they_were_added(database):
    for target in ("b", "c", "a"):
        SqlTargetStore(database).add(target)

    assert SqlTargetStore(database).all() == ["b", "c", "a"]


def test_adding_twice_and_removing_what_is_not_there_change_nothing(database):
    store = SqlTargetStore(database)
    store.add("a")

    store.add("a")
    store.remove("b")

    assert store.all() == ["a"]


def test_removed_target_is_gone(database):
    store = SqlTargetStore(database)
    store.add("a")
    store.add("it's; DROP TABLE targets")

    store.remove("a")

    assert store.all() == ["it's; DROP TABLE targets"]
