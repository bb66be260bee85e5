"""Damage in the journal and records that wait too long are told, once each."""

import asyncio
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import OperationalError

from lingpai.metering.loader import SqliteLoader
from lingpai.metering.segments import START, Position
from lingpai.metering.watch import DELAYED_AFTER_S, JournalWatch

NOW = 1_800_000_000.0


@dataclass
class Way:
    """The journal, or the ingester: how far it has come, and what it skipped."""

    position: Position = START
    skipped: int = 0


class Watched:
    """The parts around a watch, and what it told."""

    def __init__(self, database, path):
        self.journal, self.ingester = Way(), Way()
        self.seconds = 0.0
        self.damage, self.delays = [], []
        self.database = database
        self._loader = SqliteLoader(path)
        self.start()

    def start(self):
        self.watch = JournalWatch(
            self.database,
            self.journal,
            self.ingester,
            on_damage=self.damage.append,
            on_delay=self.delays.append,
            clock=lambda: NOW,
            monotonic=lambda: self.seconds,
        )

    def skip(self, text, *, found_at=NOW, is_said=True):
        self._loader.load([], (1, 1), damage=[(found_at, 7, text)])
        self.ingester.skipped += is_said

    def look(self, *, after_s=1.0):
        self.seconds += after_s
        asyncio.run(self.watch.look())

    def close(self):
        self._loader.close()


@pytest.fixture
def watched(database, database_path):
    watched = Watched(database, database_path)
    yield watched
    watched.close()


def test_damage_is_told_when_it_is_found(watched):
    watched.look()
    watched.skip("segment 7 is damaged")
    watched.look()
    watched.look()

    (damage,) = watched.damage
    assert (damage.segment, damage.description, damage.found_at) == (7, "segment 7 is damaged", NOW)


def test_damage_of_the_last_days_is_told_at_the_next_start_too(watched):
    """Its `id` is the same, so that whoever notes it can drop the repeat."""
    watched.skip("long ago", found_at=NOW - 10 * 86_400)
    watched.skip("just before the server was killed", found_at=NOW - 60)
    watched.look()
    watched.start()
    watched.look()

    first, second = watched.damage
    assert first == second
    assert first.description == "just before the server was killed"


def test_damage_that_a_killed_ingester_did_not_tell_of_is_found_within_a_minute(watched):
    watched.look()
    watched.skip("noted, then killed", is_said=False)
    watched.look()
    soon = list(watched.damage)

    watched.look(after_s=60)

    assert soon == []
    assert [damage.description for damage in watched.damage] == ["noted, then killed"]


def test_a_database_that_is_away_is_asked_again(watched, monkeypatch):
    def fails():
        raise OperationalError("select", {}, Exception("locked"))

    watched.skip("damaged")
    with monkeypatch.context() as patched:
        patched.setattr(watched.watch, "_new_damage", fails)
        watched.look()

    watched.look()

    assert len(watched.damage) == 1


def test_records_that_wait_for_a_minute_are_told_of_once(watched):
    watched.journal.position = (1, 500)
    watched.look()
    watched.look(after_s=DELAYED_AFTER_S - 1)
    quiet = list(watched.delays)
    watched.look()
    watched.look(after_s=3600)

    assert quiet == []
    assert watched.delays == [DELAYED_AFTER_S]


def test_a_second_delay_is_told_of_after_the_first_was_over(watched):
    watched.journal.position = (1, 500)
    watched.look()
    watched.look(after_s=DELAYED_AFTER_S)
    watched.ingester.position, watched.journal.position = (1, 500), (1, 900)
    watched.look()

    watched.look(after_s=DELAYED_AFTER_S)

    assert len(watched.delays) == 2


def test_an_ingester_that_is_behind_but_gets_on_is_not_late(watched):
    """Under load there is always something that waits, but nothing waits long."""
    for number in range(1, 20):
        watched.journal.position, watched.ingester.position = (1, number * 100), (1, number * 100 - 100)
        watched.look(after_s=DELAYED_AFTER_S / 2)

    assert watched.delays == []
