"""Peppers and root keys: what needs each version, and when one may be taken away."""

import os
from pathlib import Path

import pytest
from secrets_fakes import Clock, Uses, error_of

from lingpai.errors import LingpaiError
from lingpai.identity.peppers import Peppers
from lingpai.secrets.numbered import NOTICED_AFTER_S, NumberedSecrets
from lingpai.storage.database import Database


@pytest.fixture
def uses() -> Uses:
    return Uses()


@pytest.fixture
def numbered(peppers: Peppers, uses: Uses, clock: Clock) -> NumberedSecrets:
    return NumberedSecrets("pepper", peppers, [uses, Uses("sessions")], clock=clock)


def test_versions_say_what_needs_them_and_since_when(
    database: Database, numbered: NumberedSecrets, uses: Uses, clock: Clock
) -> None:
    made_at = clock.now
    clock.now += 100
    uses.counted = {1: 3}
    with database.write() as connection:
        made = numbered.rotate(connection, leaked=False)
        old, new = numbered.versions(connection)

    assert made == [new]
    assert (old.version, old.state, old.created_at, old.uses) == ("1", "old", made_at, {"API keys": 3})
    assert (new.version, new.state, new.created_at, new.uses) == ("2", "current", clock.now, {})
    assert old.place.endswith("pepper.json")


def test_version_that_is_needed_and_missing_is_shown(
    database: Database, numbered: NumberedSecrets, uses: Uses
) -> None:
    uses.counted = {7: 2}
    with database.read() as connection:
        found = numbered.versions(connection)

    assert [(each.version, each.state, each.place == "missing") for each in found] == [
        ("1", "current", False),
        ("7", "old", True),
    ]


def test_retiring_is_refused_while_anything_needs_the_version(
    database: Database, numbered: NumberedSecrets, uses: Uses, clock: Clock, peppers: Peppers
) -> None:
    peppers.rotate()
    clock.now += NOTICED_AFTER_S
    uses.counted = {1: 3}
    with database.write() as connection:
        with pytest.raises(LingpaiError, match=r"needed \(API keys: 3\)") as caught:
            numbered.retire(connection, "1")
        assert error_of(caught) == ("invalid_request", "version")

        uses.counted = {2: 3}
        numbered.retire(connection, "1")

    assert list(peppers.versions()) == [2]


def test_retiring_waits_until_other_servers_have_noticed_the_new_version(
    database: Database, numbered: NumberedSecrets, clock: Clock, peppers: Peppers
) -> None:
    """They go on making keys under the old one until then."""
    peppers.rotate()
    clock.now += NOTICED_AFTER_S - 1
    with (
        database.write() as connection,
        pytest.raises(LingpaiError, match=r"made just now.*Try again in 1 s"),
    ):
        numbered.retire(connection, "1")

    assert 1 in peppers


@pytest.mark.parametrize("version", ["", "0", "3", "x", "-1", "٣", "9" * 400, "1 OR 1=1", "01x"])
def test_unknown_versions_are_not_found(database: Database, numbered: NumberedSecrets, version: str) -> None:
    with database.write() as connection, pytest.raises(LingpaiError) as caught:
        numbered.retire(connection, version)

    assert error_of(caught) == ("not_found", "version")


def test_newest_version_cannot_be_retired(database: Database, numbered: NumberedSecrets) -> None:
    with database.write() as connection, pytest.raises(LingpaiError, match="the one in use"):
        numbered.retire(connection, "1")


def test_secrets_of_the_environment_say_how_to_change_them(database: Database, clock: Clock) -> None:
    peppers = Peppers.from_text(f"1:{'ab' * 32},2:{'cd' * 32}")
    numbered = NumberedSecrets("pepper", peppers, [], clock=clock)
    with database.write() as connection:
        with pytest.raises(LingpaiError, match=r"LINGPAI_PEPPER=3:NEW,1:OLD,\*2:OLD") as caught:
            numbered.rotate(connection, leaked=False)
        with pytest.raises(LingpaiError, match=r"Nothing needs it.*restart the server"):
            numbered.retire(connection, "1")

    assert "abab" not in str(caught.value.message)


def test_version_that_is_not_used_yet_is_the_next(database: Database) -> None:
    numbered = NumberedSecrets("pepper", Peppers.from_text(f"2:{'ab' * 32},*1:{'cd' * 32}"), [])
    with database.read() as connection:
        assert [(each.version, each.state) for each in numbered.versions(connection)] == [
            ("1", "current"),
            ("2", "next"),
        ]


def test_leaked_is_for_signing_keys(database: Database, numbered: NumberedSecrets) -> None:
    with database.write() as connection, pytest.raises(LingpaiError) as caught:
        numbered.rotate(connection, leaked=True)

    assert error_of(caught) == ("invalid_request", "leaked")


def test_full_disk_is_told_and_changes_nothing(
    database: Database, numbered: NumberedSecrets, peppers: Peppers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with database.write() as connection, pytest.raises(LingpaiError, match="No space left") as caught:
        numbered.rotate(connection, leaked=False)

    assert caught.value.code == "storage_unavailable"
    assert peppers.newest_version == 1


def test_damaged_file_is_told_and_changes_nothing(
    database: Database, numbered: NumberedSecrets, peppers: Peppers, tmp_path: Path
) -> None:
    (tmp_path / "secrets" / "pepper.json").write_text("canary-of-a-file")
    with database.write() as connection, pytest.raises(LingpaiError, match="damaged") as caught:
        numbered.rotate(connection, leaked=False)

    assert "canary" not in caught.value.message
    assert peppers.newest_version == 1
