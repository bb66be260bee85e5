"""Targets in the database, and the providers' keys for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import Connection, select, update

from lingpai.catalog.store import SqlTargetStore
from lingpai.catalog.tables import targets
from lingpai.principal import Principal
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.sealing import RootKeys, Sealer, SealError
from lingpai.storage.trail import Deed, NoTrail

TARGET = "https://api.example.com/v1"
KEY = "canary-provider-key-x7Qa"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "lingpai.db"))
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> SqlTargetStore:
    return SqlTargetStore(database, Sealer(RootKeys({1: b"r" * 32})), trail=NoTrail())


def test_targets_are_kept_in_the_order_they_were_added(store: SqlTargetStore) -> None:
    for target in ("b", "c", "a"):
        store.add(None, target)

    assert store.all() == ["b", "c", "a"]


def test_adding_twice_and_removing_what_is_not_there_change_nothing(store: SqlTargetStore) -> None:
    store.add(None, "a")

    store.add(None, "a")
    store.remove(None, "b")

    assert store.all() == ["a"]


def test_removed_target_is_gone(store: SqlTargetStore) -> None:
    store.add(None, "a")
    store.add(None, "it's; DROP TABLE targets")

    store.remove(None, "a")

    assert store.all() == ["it's; DROP TABLE targets"]


def test_every_change_is_recorded_and_no_key_is_told(database: Database) -> None:
    class Kept(NoTrail):
        deeds: ClassVar[list[Deed]] = []

        def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
            assert connection.in_transaction()
            self.deeds.append(deed)

    store = SqlTargetStore(database, Sealer(RootKeys({1: b"r" * 32})), trail=Kept())

    store.add(None, TARGET, KEY)
    store.put_key(None, TARGET, None)
    store.remove(None, TARGET, reason="no longer served")

    actions = ["target.add", "target.set_key", "target.remove_key", "target.remove"]
    assert [deed.action for deed in Kept.deeds] == actions
    assert {deed.target_id for deed in Kept.deeds} == {TARGET}
    assert KEY not in repr(Kept.deeds)
    assert Kept.deeds[-1].reason == "no longer served"


# -- keys


def test_key_is_kept_with_its_target_and_shown_by_its_end(store: SqlTargetStore) -> None:
    store.add(None, TARGET, KEY)
    store.add(None, "https://without")

    with_key, without = store.kept()

    assert store.read_key(TARGET) == KEY
    assert with_key.key is not None
    assert with_key.key.hint == "…x7Qa"
    assert with_key.key.set_at >= with_key.added_at - 1
    assert (without.key, store.read_key("https://without"), store.read_key("https://unknown")) == (
        None, None, None,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["x", "x" * 19])
def test_short_key_shows_nothing(store: SqlTargetStore, key: str) -> None:
    store.add(None, TARGET, key)

    (kept,) = store.kept()

    assert kept.key is not None
    assert kept.key.hint == "…"


def test_key_is_replaced_and_removed(store: SqlTargetStore) -> None:
    store.add(None, TARGET, KEY)

    assert store.put_key(None, TARGET, "another-provider-key-9Zzz")
    assert store.read_key(TARGET) == "another-provider-key-9Zzz"
    assert store.kept()[0].key.hint == "…9Zzz"  # type: ignore[union-attr]
    assert store.put_key(None, TARGET, None)
    assert store.read_key(TARGET) is None
    assert store.kept()[0].key is None


def test_adding_a_kept_target_again_keeps_its_key_or_takes_the_new_one(store: SqlTargetStore) -> None:
    store.add(None, TARGET, KEY)
    store.add(None, TARGET)
    assert store.read_key(TARGET) == KEY

    store.add(None, TARGET, "new")

    assert store.read_key(TARGET) == "new"
    assert store.all() == [TARGET]


def test_target_that_is_not_kept_gets_no_key(store: SqlTargetStore) -> None:
    assert not store.put_key(None, TARGET, KEY)
    assert store.all() == []


def test_removed_target_takes_its_key_along(store: SqlTargetStore) -> None:
    store.add(None, TARGET, KEY)
    store.remove(None, TARGET)
    store.add(None, TARGET)

    assert store.read_key(TARGET) is None


@pytest.mark.parametrize("other", ["https://attacker.example/v1", TARGET + "/", TARGET.upper()])
def test_key_does_not_go_along_when_a_row_names_another_target(
    database: Database, store: SqlTargetStore, other: str
) -> None:
    """Who may write into the database must not be able to send a key to a host of their own."""
    store.add(None, TARGET, KEY)
    with database.write() as connection:
        connection.execute(update(targets).values(target=other))

    with pytest.raises(SealError) as caught:
        store.read_key(other)

    assert "canary" not in str(caught.value)


def test_key_of_one_target_does_not_open_for_another(database: Database, store: SqlTargetStore) -> None:
    store.add(None, TARGET, KEY)
    store.add(None, "https://attacker.example/v1", "attackers-own-key-1234")
    with database.write() as connection:
        sealed = connection.scalar(select(targets.c.sealed_key).where(targets.c.target == TARGET))
        connection.execute(update(targets).values(sealed_key=sealed))

    with pytest.raises(SealError):
        store.read_key("https://attacker.example/v1")


def test_database_alone_has_no_key_in_it(database: Database, store: SqlTargetStore, tmp_path: Path) -> None:
    store.add(None, TARGET, KEY)
    store.put_key(None, TARGET, "another-canary-provider-key")
    store.remove(None, TARGET)

    content = b"".join(file.read_bytes() for file in tmp_path.glob("lingpai.db*"))

    assert TARGET.encode() in content
    assert b"canary" not in content
