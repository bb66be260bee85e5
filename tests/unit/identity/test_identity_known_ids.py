"""Known ids: no key is ever taken for unknown, hardly any unknown one for a key, and look-ups stay bounded."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.identity import known_ids as known_ids_module
from lingpai.identity.known_ids import KnownIds, LookUps, SqlIds, fill_in_background
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.service import Keys
from lingpai.ids import random_base62
from lingpai.principal import Principal
from lingpai.storage.database import Database

HERE = "203.0.113.7"


class Ids(list[str]):
    """Ids as a source."""

    def key_ids(self) -> Iterator[str]:
        return iter(self)

    def count_keys(self) -> int:
        return len(self)


def filled(*ids: str) -> KnownIds:
    known = KnownIds()
    known.fill(Ids(ids), pause=lambda _: None)
    return known


def new_ids(count: int) -> list[str]:
    return [random_base62(12) for _ in range(count)]


# -- the table


def test_until_it_is_filled_everything_counts_as_known() -> None:
    known = KnownIds()

    assert known.is_known(b"whatever")


def test_ids_are_known_and_others_are_not() -> None:
    ids, others = new_ids(5000), new_ids(5000)

    known = filled(*ids)

    assert all(known.is_known(each.encode()) for each in ids)
    assert not any(known.is_known(each.encode()) for each in others)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text("ab01", max_size=3)), st.lists(st.text("ab01", max_size=3)), st.text("ab01", max_size=3)
)
def test_no_id_is_ever_lost(before: list[str], after: list[str], asked: str) -> None:
    known = filled(*before)
    for each in after:
        known.add(each)

    assert all(known.is_known(each.encode()) for each in before + after)
    assert known.is_known(asked.encode()) == (asked in before + after)


def test_ids_that_come_later_are_known_however_many_they_are() -> None:
    known = filled()
    ids = new_ids(20_000)

    for each in ids:
        known.add(each)

    assert all(known.is_known(each.encode()) for each in ids)
    assert not any(known.is_known(each.encode()) for each in new_ids(1000))


def test_key_made_while_the_table_is_filled_is_known() -> None:
    known = KnownIds()

    class Slow(Ids):
        def key_ids(self) -> Iterator[str]:
            yield "first"
            known.add("made-meanwhile")
            yield "last"

    known.fill(Slow())
    known.add("made-after")

    assert all(known.is_known(each) for each in (b"first", b"made-meanwhile", b"last", b"made-after"))
    assert not known.is_known(b"other")


def test_a_key_costs_few_bytes() -> None:
    known = filled(*new_ids(30_000))
    known.is_known(b"")

    assert known._tables is not None
    assert sum(table._slots.itemsize * len(table._slots) for table in known._tables) < 8 * 30_000


def test_the_same_id_twice_takes_one_place() -> None:
    known = filled("a")
    for _ in range(10_000):
        known.add("a")

    known.is_known(b"a")

    assert known._tables is not None
    assert [table.count for table in known._tables] == [1]


def test_filling_pauses_so_that_callers_do_not_wait() -> None:
    pauses: list[float] = []

    KnownIds().fill(Ids(new_ids(2000)), pause=pauses.append)

    assert len(pauses) == 4


def test_ids_are_read_from_the_database(database: Database, keys: Keys, admin: Principal) -> None:
    made = [keys.create(admin, KeyCreate(name=f"key-{number}")).key.id for number in range(3)]
    keys.delete(admin, made[0])
    known = KnownIds()

    fill_in_background(known, SqlIds(database)).join(5)

    assert [known.is_known(each.encode()) for each in made] == [True] * 3
    assert not known.is_known(random_base62(12).encode())


def test_database_that_cannot_be_read_leaves_everything_known(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ids):
        def key_ids(self) -> Iterator[str]:
            raise OSError("gone")

    known = KnownIds()

    thread = fill_in_background(known, Broken())
    thread.join(5)

    assert isinstance(thread, threading.Thread)
    assert known.is_known(b"any")
    assert "could not be read" in caplog.text


# -- look-ups


def test_failing_look_ups_are_bounded_for_each_address() -> None:
    look_ups = LookUps(per_s=5, burst=20)

    for _ in range(20):
        assert look_ups.wait_s(HERE, 100.0) == 0
        look_ups.failed(HERE, 100.0)

    assert look_ups.wait_s(HERE, 100.0) == pytest.approx(0.2)
    assert look_ups.wait_s("203.0.113.8", 100.0) == 0
    assert look_ups.wait_s(HERE, 100.21) == 0


def test_failing_look_ups_are_bounded_for_all_together() -> None:
    look_ups = LookUps(all_per_s=100, all_burst=50)

    for number in range(50):
        look_ups.failed(f"203.0.113.{number}", 100.0)

    assert look_ups.wait_s(HERE, 100.0) == pytest.approx(0.01)
    assert look_ups.wait_s(HERE, 100.02) == 0


def test_look_ups_that_succeed_are_not_counted() -> None:
    """Nobody calls `failed` for them, so an office with a thousand good keys behind one address is not refused."""
    look_ups = LookUps(per_s=1, burst=1)

    assert [look_ups.wait_s(HERE, 100.0) for _ in range(1000)] == [0] * 1000


def test_addresses_that_failed_do_not_fill_the_memory() -> None:
    look_ups = LookUps(most_addresses=100)

    for number in range(1000):
        look_ups.failed(f"2001:db8::{number:x}", 100.0)

    assert len(look_ups._free_at) == 100


def test_growing_tables_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_ids_module, "_LARGE", 4000)
    known = filled()
    known.is_known(b"")
    for each in new_ids(20_000):
        known.add(each)

    assert known._tables is not None
    assert len(known._tables) < 16
