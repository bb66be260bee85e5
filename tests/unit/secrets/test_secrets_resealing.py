"""Sealed values move to the newest root key, whatever happens meanwhile."""

import pytest
from secrets_fakes import Clock
from sqlalchemy import select, update

from lingpai.catalog.store import SqlTargetStore
from lingpai.catalog.tables import SEALED_KEYS, targets
from lingpai.secrets.resealing import BATCH, LOOK_AGAIN_S, Resealer
from lingpai.secrets.tables import SEALED_PRIVATE_KEYS
from lingpai.secrets.token_keys import TokenKeys
from lingpai.server_secrets import SEALED_COLUMNS
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.storage.trail import NoTrail


@pytest.fixture
def store(database: Database, sealer: Sealer) -> SqlTargetStore:
    return SqlTargetStore(database, sealer, trail=NoTrail())


@pytest.fixture
def resealer(database: Database, sealer: Sealer, clock: Clock) -> Resealer:
    return Resealer(database, sealer, SEALED_COLUMNS, clock=clock)


def counted(database: Database) -> dict[int, int]:
    with database.read() as connection:
        return SEALED_KEYS.count(connection, 0.0)


def test_every_value_moves_and_still_opens(
    database: Database, store: SqlTargetStore, resealer: Resealer, root_keys: RootKeys, token_keys: TokenKeys
) -> None:
    names = [f"https://host-{number}/v1" for number in range(BATCH * 2 + 7)]
    for name in names:
        store.add(None, name, f"key-of-{name}")
    store.add(None, "https://without-a-key/v1")
    signing = token_keys.current("EdDSA")
    root_keys.rotate()

    assert resealer.run() == len(names) + 1

    root_keys.retire(1)
    assert counted(database) == {2: len(names)}
    assert {name: store.read_key(name) for name in names} == {name: f"key-of-{name}" for name in names}
    token_keys._signing.clear()
    assert token_keys.current("EdDSA") == signing


def test_nothing_is_read_again_until_a_rotation_or_a_minute_later(
    database: Database, store: SqlTargetStore, resealer: Resealer, root_keys: RootKeys, clock: Clock
) -> None:
    """A server that does not know the newest root key yet may have sealed something since."""
    root_keys.rotate()
    assert resealer.run() == 0
    store._sealer = Sealer(RootKeys({1: root_keys.value(1)}))
    store.add(None, "https://late/v1", "key")

    assert resealer.run() == 0
    clock.now += LOOK_AGAIN_S
    assert resealer.run() == 1
    assert counted(database) == {2: 1}


def test_values_that_do_not_open_stay_and_are_told_once(
    *, database: Database, store: SqlTargetStore, resealer: Resealer, root_keys: RootKeys, clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for number in range(BATCH + 1):
        store.add(None, f"https://host-{number:03}/v1", "canary-provider-key")
    with database.write() as connection:  # each has the value of another row
        first = connection.scalar(select(targets.c.sealed_key).limit(1))
        connection.execute(
            update(targets).where(targets.c.target < "https://host-100").values(sealed_key=first)
        )
    root_keys.rotate()

    done = resealer.run()
    told = len(caplog.records)
    clock.now += LOOK_AGAIN_S
    again = resealer.run()

    assert done == 2  # the one whose value it is, and the last one
    assert again == 0
    assert counted(database) == {1: BATCH - 1, 2: 2}
    assert told == len(caplog.records) == BATCH - 1
    assert "canary" not in caplog.text


def test_value_that_was_replaced_meanwhile_stays(
    database: Database, store: SqlTargetStore, root_keys: RootKeys, sealer: Sealer
) -> None:
    store.add(None, "https://host/v1", "old")
    root_keys.rotate()
    with database.read() as connection:
        ((id_, sealed),) = SEALED_KEYS.sealed_before(connection, 2, after="", limit=10)
    store.put_key(None, "https://host/v1", "new")

    with database.write() as connection:
        SEALED_KEYS.replace(connection, id_, sealed, sealer.seal("provider-key", id_, b"old"))

    assert store.read_key("https://host/v1") == "new"


def test_what_a_newer_root_key_has_sealed_stays(
    database: Database, store: SqlTargetStore, root_keys: RootKeys, clock: Clock
) -> None:
    """Two servers, of which one knows a version and does not use it yet, must not seal against each other."""
    root_keys.rotate()
    store.add(None, "https://host/v1", "key")
    values = {version: root_keys.value(version) for version in (1, 2)}
    late = Resealer(database, Sealer(RootKeys(values, current=1)), SEALED_COLUMNS, clock=clock)

    assert late.run() == 0
    assert counted(database) == {2: 1}


def test_damaged_values_are_counted_as_of_no_version(database: Database, store: SqlTargetStore) -> None:
    store.add(None, "https://host/v1", "key")
    for damaged in (b"", b"\x09\x00\x00\x00\x01", b"x"):
        with database.write() as connection:
            connection.execute(update(targets).values(sealed_key=damaged))

        assert counted(database) == {0: 1}


def test_every_sealed_column_is_known() -> None:
    """One that is left out would be lost when its root key is retired."""
    from lingpai.domains import metadata

    sealed = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if column.name.startswith("sealed_")
    }

    assert sealed == {(column.table.name, column.column) for column in SEALED_COLUMNS}
    assert len({column.purpose for column in SEALED_COLUMNS}) == len(SEALED_COLUMNS)
    assert SEALED_PRIVATE_KEYS in SEALED_COLUMNS
