"""The trail in a database: whatever somebody does to it who owns the file and has not got the key is found, and where."""

import json
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from audit_world import NOW, Clock, World, messages, rechain
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lingpai.audit.canonical import canonical, hash_of
from lingpai.audit.database_verification import NoTrailError, verify_database
from lingpai.audit.keys import ensure_keys

CUT_AT_5 = (
    "records 6 to 10 are missing at the end, as the checkpoint outside of the database says: cut off, or an older backup"
    " was restored"
)


def edit(connection, number, **fields):
    """Change a record and nothing else."""
    line = line_of(connection, number)
    new = canonical({**json.loads(line), **fields})
    connection.execute("UPDATE audit_records SET line = ? WHERE number = ?", (new, number))


def line_of(connection, number):
    return connection.execute("SELECT line FROM audit_records WHERE number = ?", (number,)).fetchone()[0]


def rehash(connection, number):
    connection.execute(
        "UPDATE audit_records SET hash = ? WHERE number = ?", (hash_of(line_of(connection, number)), number)
    )


def renumber(connection, first, by):
    """Move the numbers of all records from `first` on."""
    connection.execute("UPDATE audit_records SET number = -(number + ?) WHERE number >= ?", (by, first))
    connection.execute("UPDATE audit_records SET number = -number WHERE number < 0")


def copy(connection, number, *, to):
    row = connection.execute("SELECT * FROM audit_records WHERE number = ?", (number,)).fetchone()
    connection.execute(f"INSERT INTO audit_records VALUES ({','.join('?' * len(row))})", (to, *row[1:]))


def test_an_untouched_trail_is_intact(world):
    world.history()

    report = world.verify()

    assert report.is_intact
    assert (report.records, report.first, report.last) == (12, 1, 12)
    assert (report.checkpoints, report.signed_up_to) == (3, 10)


def test_an_empty_trail_is_intact(world):
    assert world.verify().is_intact


def test_one_changed_byte_is_found_and_located(world):
    world.history()
    with world.tampering() as connection:
        line = line_of(connection, 6).replace("key-6", "key-7")
        connection.execute("UPDATE audit_records SET line = ? WHERE number = 6", (line,))

    report = world.verify()

    assert messages(report)[0] == (6, "was changed: its hash is another one")
    assert report.findings[0].time == world.records()[5]["time"]


def test_a_changed_record_with_a_hash_worked_out_anew_is_found_where_the_chain_breaks(world):
    world.history()
    with world.tampering() as connection:
        edit(connection, 6, result="refused")
        connection.execute("UPDATE audit_records SET result = 'refused' WHERE number = 6")
        rehash(connection, 6)

    assert messages(world.verify()) == [
        (7, "does not lead on from record 6: one of the two was changed, or put in")
    ]


def test_history_written_anew_contradicts_the_next_checkpoint(world):
    world.history()
    with world.tampering() as connection:
        edit(connection, 6, result="refused")
        connection.execute("UPDATE audit_records SET result = 'refused' WHERE number = 6")
        rechain(connection, 6)

    found = messages(world.verify())

    assert (
        8,
        "records 5 to 8 are not those that were signed: at least one was changed or put in",
    ) in found
    assert {number for number, _ in found} == {8, 10}


def test_a_removed_record_is_found_and_located(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number = 6")

    assert messages(world.verify()) == [(7, "record 6 is missing before this one")]


def test_a_removed_record_whose_gap_was_closed_is_found(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number = 6")
        renumber(connection, 7, -1)
        rechain(connection, 6)

    found = messages(world.verify())

    assert found[0] == (
        8,
        "records 5 to 8 are not those that were signed: at least one was changed or put in",
    )


def test_two_swapped_records_are_found_and_located(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("UPDATE audit_records SET number = -6 WHERE number = 6")
        connection.execute("UPDATE audit_records SET number = 6 WHERE number = 7")
        connection.execute("UPDATE audit_records SET number = 7 WHERE number = -6")

    assert messages(world.verify())[:2] == [
        (6, "is not here: record 7 stands in its place"),
        (7, "is not here: record 6 stands in its place"),
    ]


def test_an_inserted_record_with_hashes_worked_out_anew_is_found(world):
    world.history()
    with world.tampering() as connection:
        renumber(connection, 7, 1)
        copy(connection, 6, to=7)
        rechain(connection, 7)

    found = messages(world.verify())

    assert found[0] == (
        8,
        "records 5 to 8 are not those that were signed: at least one was changed or put in",
    )


def test_a_removed_tail_is_told_by_a_checkpoint_in_the_database(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number > 9")

    assert (
        10,
        "record 10 is missing at the end, as a checkpoint says: cut off, or an older backup was restored",
    ) in messages(world.verify())


def test_a_tail_removed_together_with_its_checkpoints_is_told_by_the_one_outside(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number > 5")
        connection.execute("DELETE FROM audit_checkpoints WHERE number > 5")

    assert messages(world.verify()) == [
        (
            10,
            CUT_AT_5,
        )
    ]


def test_a_removed_tail_that_grew_again_contradicts_the_checkpoint_outside(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number > 5")
        connection.execute("DELETE FROM audit_checkpoints WHERE number > 5")
    world.act(*(f"other-{number}" for number in range(20)))

    assert messages(world.verify()) == [
        (10, "is not the one that was signed: the checkpoint outside of the database has another hash")
    ]


def test_everything_removed_is_told_by_the_checkpoint_outside(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records")
        connection.execute("DELETE FROM audit_checkpoints")

    assert [number for number, _ in messages(world.verify())] == [10]


def test_a_column_that_says_something_else_than_its_record_is_found(world):
    """Lists and searches read the columns: a record could be hidden from them."""
    world.history()
    with world.tampering() as connection:
        connection.execute("UPDATE audit_records SET actor_name = 'mallory', time = 0 WHERE number = 3")

    assert messages(world.verify()) == [
        (3, "the columns time, actor_name do not say what the record says: lists and searches show them")
    ]


def test_a_forged_checkpoint_is_found(world):
    world.history()
    with world.tampering() as connection:
        line = connection.execute("SELECT line FROM audit_checkpoints WHERE number = 8").fetchone()[0]
        forged = canonical({**json.loads(line), "time": "2020-01-01T00:00:00.000Z"})
        connection.execute("UPDATE audit_checkpoints SET line = ? WHERE number = 8", (forged,))

    assert messages(world.verify()) == [(8, "its checkpoint is not signed by a known key")]


def test_a_checkpoint_taken_out_of_the_database_is_told_by_the_one_outside(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_checkpoints WHERE number = 10")

    assert messages(world.verify()) == [(10, "its checkpoint was taken out of the database")]


def test_a_forged_checkpoint_outside_is_found(world):
    world.history()
    path = world.data / "audit" / "checkpoint.json"
    path.write_text(path.read_text().replace('"number":10', '"number":1'))

    assert messages(world.verify()) == [
        (None, "a checkpoint outside of the database is not signed by a known key")
    ]


def test_a_missing_trigger_is_found(world):
    world.history()
    with closing(sqlite3.connect(world.path)) as connection:
        connection.execute("DROP TRIGGER audit_records_no_delete")
        connection.commit()

    assert messages(world.verify()) == [
        (None, "the trigger audit_records_no_delete, which keeps records from being changed, is missing")
    ]


def test_two_changes_are_both_found(world):
    world.history()
    with world.tampering() as connection:
        for number in (3, 11):
            line = line_of(connection, number).replace(f"key-{number}", "key-0")
            connection.execute("UPDATE audit_records SET line = ? WHERE number = ?", (line, number))

    assert {number for number, _ in messages(world.verify())} == {3, 11}


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"number":1}', '{"a":1e400}', "[" * 100_000])
def test_a_line_that_is_none_is_found(world, damage):
    world.history()
    with world.tampering() as connection:
        connection.execute("UPDATE audit_records SET line = ? WHERE number = 2", (damage,))

    assert messages(world.verify())[0][0] == 2


@pytest.mark.parametrize("number", [10**15, 0, -5])
def test_a_record_with_a_number_from_nowhere_is_found_at_once(world, number):
    world.history()
    with world.tampering() as connection:
        copy(connection, 3, to=number)

    assert messages(world.verify())[0] == (number, "is not here: record 3 stands in its place")


def test_bytes_that_are_no_text_are_found_and_located(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("UPDATE audit_records SET line = CAST(X'7BFFFE' AS TEXT) WHERE number = 4")
        connection.execute("UPDATE audit_records SET actor_name = CAST(X'FF' AS TEXT) WHERE number = 5")

    assert {number for number, _ in messages(world.verify())} >= {4, 5}


@pytest.mark.parametrize(
    "fields", [{"time": 5}, {"actor": None}, {"target": []}, {"previous": None}, {"action": {"a": 1}}]
)
def test_a_record_of_another_form_is_found_whatever_its_hash(world, fields):
    world.history()
    with world.tampering() as connection:
        edit(connection, 11, **fields)
        rechain(connection, 11)
        if fields == {"previous": None}:
            edit(connection, 11, **fields)

    assert 11 in {number for number, _ in messages(world.verify())}


def test_a_missing_record_that_a_checkpoint_outside_is_about_is_told(world):
    world.history()
    with world.tampering() as connection:
        connection.execute("DELETE FROM audit_records WHERE number = 10")

    assert (10, "is missing, as the checkpoint outside of the database says") in messages(world.verify())


def test_a_file_without_a_trail_is_told_apart_from_one_that_was_changed(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE a (b)")

    with pytest.raises(NoTrailError, match="no audit trail"):
        verify_database(tmp_path / "other.db", None)
    with pytest.raises(NoTrailError, match="There is no"):
        verify_database(tmp_path / "missing.db", None)
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(NoTrailError, match="cannot be read"):
        verify_database(tmp_path / "text.db", None)


def test_verifying_changes_nothing_and_needs_no_right_to_write(world):
    world.history()
    before = world.path.read_bytes()

    world.verify()

    assert world.path.read_bytes() == before


def test_progress_is_told(world):
    world.history()
    told: list[tuple[int, int]] = []

    verify_database(world.path, world.keys, on_progress=lambda *progress: told.append(progress))

    assert told == [(0, 12), (12, 12)]


# -- anything at random

MANIPULATIONS = ("edit", "rewrite", "remove", "close a gap", "swap", "insert", "cut")


def manipulate(connection, kind, number, rng):
    """One manipulation of a record that is signed. Hashes are worked out anew where that is meant to hide it."""
    if kind == "edit":
        line = line_of(connection, number)
        place = rng.randrange(len(line))
        other = chr((ord(line[place]) + rng.randrange(1, 90)) % 0x7E or 1)
        new = line[:place] + other + line[place + 1 :]
        connection.execute("UPDATE audit_records SET line = ? WHERE number = ?", (new, number))
    elif kind == "rewrite":
        edit(connection, number, reason=f"nothing to see here {rng.random()}")
        rechain(connection, number)
    elif kind == "remove":
        connection.execute("DELETE FROM audit_records WHERE number = ?", (number,))
    elif kind == "close a gap":
        connection.execute("DELETE FROM audit_records WHERE number = ?", (number,))
        renumber(connection, number + 1, -1)
        rechain(connection, number)
    elif kind == "swap":
        other = number % 10 + 1
        first, second = line_of(connection, number), line_of(connection, other)
        connection.execute("UPDATE audit_records SET line = ? WHERE number = ?", (second, number))
        connection.execute("UPDATE audit_records SET line = ? WHERE number = ?", (first, other))
        rechain(connection, 1)
    elif kind == "insert":
        renumber(connection, number, 1)
        copy(connection, number + 1, to=number)
        rechain(connection, number)
    else:
        connection.execute("DELETE FROM audit_records WHERE number >= ?", (number,))
        connection.execute("DELETE FROM audit_checkpoints WHERE number >= ?", (number,))


@pytest.fixture(scope="module")
def finished(migrated_file, tmp_path_factory):
    """A data directory with a history, to be copied."""
    data = tmp_path_factory.mktemp("finished")
    shutil.copyfile(migrated_file, data / "lingpai.db")
    ensure_keys(data / "secrets" / "audit.json")
    world = World(data, Clock(NOW))
    world.history()
    world.close()
    return data


@given(
    kind=st.sampled_from(MANIPULATIONS),
    number=st.integers(1, 10),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_manipulation_of_what_is_signed_is_found(finished, tmp_path_factory, kind, number, seed):
    assume(
        (kind, number) != ("insert", 10)
    )  # the copy would stand where the signed one stood, and say the same
    data = tmp_path_factory.mktemp("tampered")
    shutil.copytree(finished, data, dirs_exist_ok=True)
    world = World(data, Clock(NOW))
    try:
        with world.tampering() as connection:
            manipulate(connection, kind, number, random.Random(seed))

        report = world.verify()

        assert not report.is_intact, (kind, number, seed)
        assert any(finding.number is not None for finding in report.findings)
    finally:
        world.close()
        shutil.rmtree(data)
