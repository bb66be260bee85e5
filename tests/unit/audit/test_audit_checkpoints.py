"""Checkpoints: written when there is something new, in the database, outside of it and in the log."""

import json
import logging
import stat

import pytest
from audit_world import NOW, Clock

from lingpai.audit.checkpoints import Checkpoints, kept_outside
from lingpai.audit.keys import AuditKeyError


@pytest.fixture
def outside(world):
    return world.data / "audit" / "checkpoint.json"


def test_a_checkpoint_is_in_the_database_outside_and_in_the_log(world, outside, caplog):
    caplog.set_level(logging.INFO, "lingpai.audit")
    world.act("a", "b")

    assert world.checkpoints.write()

    [row] = world.store.checkpoints(0, 99)
    statement = json.loads(row.line)
    assert (statement["number"], statement["hash"]) == (2, world.store.tail().hash)
    assert world.keys.vouch_for(statement)
    assert outside.read_text() == f"{row.line}\n"
    assert f"audit checkpoint 2: {row.line}" in caplog.text
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert stat.S_IMODE(outside.parent.stat().st_mode) == 0o700


def test_nothing_is_signed_twice_and_nothing_when_there_is_nothing(world, outside):
    assert not world.checkpoints.write()
    world.act("a")
    assert world.checkpoints.write()
    assert not world.checkpoints.write()
    again = Checkpoints(world.database, world.store, world.data / "audit", sign=world.sign, clock=Clock(NOW))

    assert not again.write()
    assert len(world.store.checkpoints(0, 99)) == 1
    assert list(outside.parent.iterdir()) == [outside]


def test_what_cannot_be_signed_now_is_signed_the_next_time(world):
    def fail(_):
        raise AuditKeyError("no key")

    failing = Checkpoints(world.database, world.store, world.data / "audit", sign=fail)
    world.act("a")
    with pytest.raises(AuditKeyError):
        failing.write()

    assert world.checkpoints.write()


def test_a_checkpoint_outside_that_fits_is_left_alone(world, outside):
    world.history()

    assert world.checkpoints.lost() is None
    assert outside.exists()


def test_without_a_checkpoint_outside_nothing_is_lost(world):
    world.act("a")

    assert world.checkpoints.lost() is None


def test_a_checkpoint_that_the_database_contradicts_is_set_aside_and_goes_on_telling(world, outside):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number > 5")
        connection.execute("DELETE FROM audit_checkpoints WHERE number > 5")

    lost = world.checkpoints.lost()
    world.act("other")
    world.checkpoints._newest = None
    world.checkpoints.write()

    assert lost is not None
    assert "record 10 was signed" in lost
    assert outside.exists()
    assert len(kept_outside(world.data)) == 2
    assert [finding.number for finding in world.verify().findings] == [10]


def test_a_checkpoint_outside_that_cannot_be_read_is_told(world, outside):
    world.history()
    outside.write_text("{")

    assert "cannot be read" in (world.checkpoints.lost() or "")


def test_the_log_of_the_database_is_on_the_disk_before_the_file_outside(world, monkeypatch):
    """Else the file could tell of records that a power failure took."""
    told = []
    monkeypatch.setattr(world.database, "force_to_disk", lambda: told.append("database"))
    monkeypatch.setattr("lingpai.audit.checkpoints.replace_durably", lambda *_: told.append("file"))
    world.act("a")

    world.checkpoints.write()

    assert told == ["database", "file"]


def test_killed_between_both_places_of_a_checkpoint_nothing_looks_tampered_with(world, outside, monkeypatch):
    world.act("a")
    world.checkpoints.write()
    world.act("b")
    with monkeypatch.context() as patch:
        patch.setattr("lingpai.audit.checkpoints.replace_durably", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.checkpoints.write()

    assert json.loads(outside.read_text())["number"] == 1
    assert world.verify().is_intact
    assert world.checkpoints.lost() is None
