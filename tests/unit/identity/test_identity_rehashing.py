"""Keys move to the newest pepper when they are presented, so that an old one can be taken away."""

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from lingpai.identity.interfaces import CreatedKey
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.rehashing import API_KEYS, OLD_API_KEYS, PEPPER_USES, Rehashes
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.service import Keys
from lingpai.identity.store import SqlCredentialStore
from lingpai.identity.tables import api_keys
from lingpai.principal import Principal
from lingpai.storage.database import Database


@pytest.fixture
def peppers(tmp_path: Path) -> Peppers:
    """From a file, so that they rotate; the services use the same object."""
    return Peppers.from_file(tmp_path / "secrets" / "pepper.json")


@pytest.fixture
def rehashes(database: Database, peppers: Peppers) -> Rehashes:
    return Rehashes(database, peppers)


@pytest.fixture
def keyring(database: Database, peppers: Peppers, rehashes: Rehashes) -> Keyring:
    return Keyring(SqlCredentialStore(database), peppers, rehashes=rehashes)


@pytest.fixture
def created(keys: Keys, admin: Principal) -> CreatedKey:
    return keys.create(admin, KeyCreate(name="old"))


def stored(database: Database, key_id: str) -> Any:
    with database.read() as connection:
        return connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one()


def call(keyring: Keyring, token: str) -> Principal | None:
    """What the gateway does with a key, without its gateway."""
    data = token.encode()
    found = keyring.find(data)
    if found is None:
        found = keyring.load(data)
        keyring.remember(data, found)
    return found


def test_key_moves_to_the_newest_pepper_when_it_is_presented(
    database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    peppers.rotate()

    assert call(keyring, created.token) is not None
    assert (
        stored(database, created.key.id).pepper_version == 1
    )  # not in the look-up: writing waits for its batch
    assert rehashes.write() == 1

    row = stored(database, created.key.id)
    assert row.pepper_version == 2
    assert row.secret_hmac == peppers.hmac(created.token.encode(), 2)
    assert rehashes.write() == 0


def test_key_in_memory_is_loaded_again_after_a_rotation(
    database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    call(keyring, created.token)
    keyring.let_go_of_old_peppers()
    look_ups = keyring.look_ups

    peppers.rotate()
    keyring.let_go_of_old_peppers()
    call(keyring, created.token)
    keyring.let_go_of_old_peppers()
    call(keyring, created.token)

    assert keyring.look_ups == look_ups + 1
    assert rehashes.write() == 1
    assert stored(database, created.key.id).pepper_version == 2


def test_memory_is_let_go_little_by_little(
    keyring: Keyring, keys: Keys, admin: Principal, peppers: Peppers
) -> None:
    tokens = [keys.create(admin, KeyCreate(name=f"key-{number}")).token for number in range(5)]
    for token in tokens:
        call(keyring, token)
    peppers.rotate()

    left = []
    for _ in range(4):
        keyring.let_go_of_old_peppers(most=2)
        left.append(len(list(keyring.principals())))

    assert left == [3, 1, 0, 0]


def test_last_use_survives_being_let_go(keyring: Keyring, peppers: Peppers, created: CreatedKey) -> None:
    principal = call(keyring, created.token)
    assert principal is not None
    principal.last_used_at = 1234.5
    peppers.rotate()

    keyring.let_go_of_old_peppers()

    assert [use.time for use in keyring.take_uses()] == [1234.5]


def test_wrong_secret_moves_nothing(
    *, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    from lingpai.ids import _checksum

    peppers.rotate()
    body = created.token[:18] + "x" * 43
    wrong = body + _checksum(body.encode())

    assert call(keyring, wrong) is None
    assert rehashes.write() == 0
    assert call(keyring, created.token) is not None


def test_secret_that_was_replaced_meanwhile_stays(
    database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    peppers.rotate()
    call(keyring, created.token)
    with database.write() as connection:
        connection.execute(update(api_keys).values(secret_hmac=b"another", pepper_version=1))

    rehashes.write()

    row = stored(database, created.key.id)
    assert (row.secret_hmac, row.pepper_version) == (b"another", 1)


def test_deleted_key_stays_without_a_secret(
    *, database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey,
    keys: Keys, admin: Principal,
) -> None:  # fmt: skip
    peppers.rotate()
    call(keyring, created.token)
    keys.delete(admin, created.key.id)

    rehashes.write()

    assert stored(database, created.key.id).secret_hmac is None


def test_failing_database_loses_nothing(
    *, database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    peppers.rotate()
    call(keyring, created.token)
    with monkeypatch.context() as patched:
        patched.setattr(database, "write", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rehashes.write()

    assert rehashes.write() == 1
    assert stored(database, created.key.id).pepper_version == 2


def test_pepper_that_was_retired_before_the_batch_is_not_written(
    database: Database, keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    """No row needed it yet, so retiring it was right; the key must not come to depend on it."""
    peppers.rotate()
    call(keyring, created.token)
    peppers.rotate()
    peppers.retire(2)

    rehashes.write()

    assert stored(database, created.key.id).pepper_version == 1
    keyring.let_go_of_old_peppers()
    assert call(keyring, created.token) is not None
    rehashes.write()
    assert stored(database, created.key.id).pepper_version == 3


def test_nothing_of_a_credential_waits_in_memory(
    keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    peppers.rotate()
    call(keyring, created.token)

    assert created.token[18:61] not in repr(vars(rehashes))


def test_newest_pepper_of_another_process_is_learned_from_its_first_row(
    database: Database, tmp_path: Path, keys: Keys, admin: Principal, peppers: Peppers
) -> None:
    """A server that has not noticed a rotation serves keys that another one has made or moved since."""
    late = Keyring(SqlCredentialStore(database), Peppers.from_file(tmp_path / "secrets" / "pepper.json"))
    peppers.rotate()
    created = keys.create(admin, KeyCreate(name="new"))
    assert stored(database, created.key.id).pepper_version == 2

    assert late.load(created.token.encode()) is not None


def test_version_that_nobody_has_is_refused_with_a_logged_reason(
    database: Database, keyring: Keyring, created: CreatedKey, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as connection:
        connection.execute(update(api_keys).values(pepper_version=7))

    with caplog.at_level(logging.WARNING):
        assert keyring.load(created.token.encode()) is None

    assert "pepper version 7, which is missing" in caplog.text
    assert created.token not in caplog.text


def test_garbage_is_told_without_a_pepper_that_was_retired(
    keyring: Keyring, rehashes: Rehashes, peppers: Peppers, created: CreatedKey
) -> None:
    from lingpai.ids import _checksum

    body = created.token[:18] + "x" * 43
    wrong = (body + _checksum(body.encode())).encode()
    keyring.forget_key(created.key.id)
    assert keyring.load(wrong) is None
    peppers.rotate()
    call(keyring, created.token)
    rehashes.write()
    peppers.retire(1)

    assert not keyring.is_known_garbage(created.token.encode())
    assert keyring.load(wrong) is None


def test_every_table_with_a_pepper_version_is_counted() -> None:
    """A table that is left out would lose its credentials when a pepper is retired."""
    from lingpai.domains import metadata

    with_peppers = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if column.name.endswith("pepper_version")
    }

    assert with_peppers == {(uses.table.name, uses.version_column) for uses in PEPPER_USES}


def test_uses_are_counted_by_version_and_those_that_ended_are_not(
    database: Database, keys: Keys, admin: Principal, peppers: Peppers, created: CreatedKey
) -> None:
    peppers.rotate()
    keys.create(admin, KeyCreate(name="new"))
    gone = keys.create(admin, KeyCreate(name="gone"))
    keys.delete(admin, gone.key.id)
    with database.write() as connection:
        old = {"old_secret_hmac": b"h", "old_pepper_version": 1, "old_expires_at": 100.0}
        connection.execute(update(api_keys).where(api_keys.c.id == created.key.id).values(old))

    with database.read() as connection:
        assert API_KEYS.count(connection, 0.0) == {1: 1, 2: 1}
        assert OLD_API_KEYS.count(connection, 99.0) == {1: 1}
        assert OLD_API_KEYS.count(connection, 100.0) == {}
