"""Exports: JSON lines as they are hashed, and CSV that no spreadsheet runs."""

import csv
import io
import json

import pytest
from audit_world import ALICE

from lingpai.audit.canonical import canonical, hash_of
from lingpai.audit.export import COLUMNS
from lingpai.audit.keys import AuditKeyError
from lingpai.audit.store import AuditFilter
from lingpai.storage.trail import Deed
from lingpai.web.export import as_csv


def csv_rows(world):
    content = b"".join(as_csv(COLUMNS, world.exporting.chunks(AuditFilter())))
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_each_line_has_its_record_and_hash_and_checkpoints_stand_behind_theirs(world):
    world.history()

    lines = [json.loads(line) for line in world.export().splitlines()]

    assert [(line["type"], line.get("number")) for line in lines] == [
        ("begin", None),
        *[("record", number) for number in range(1, 5)],
        ("checkpoint", 4),
        *[("record", number) for number in range(5, 9)],
        ("checkpoint", 8),
        ("record", 9),
        ("record", 10),
        ("checkpoint", 10),
        ("record", 11),
        ("record", 12),
        ("end", None),
    ]
    for line in lines:
        if line["type"] == "record":
            hash_ = line.pop("hash")
            assert hash_of(canonical(line)) == hash_


def test_more_records_than_one_piece_are_all_there_in_order(world):
    with world.database.write() as connection:
        for number in range(1201):
            deed = Deed(action="key.create", target_kind="key", target_id=f"key-{number}")
            world.trail.record(connection, ALICE, deed)

    report = world.verify_export(world.export())

    assert (report.is_intact, report.records) == (True, 1201)
    assert [row["number"] for row in csv_rows(world)] == [str(number) for number in range(1, 1202)]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_is_escaped(world, start):
    name = f"{start}HYPERLINK(1)"
    world.trail.note(
        ALICE, Deed(action="key.create", target_kind="key", target_id=name, target_name=name, reason=name)
    )

    [row] = csv_rows(world)

    assert (row["target_id"], row["target_name"], row["reason"]) == (f"'{name}",) * 3


def test_a_csv_row_has_everything_that_the_record_says(world):
    deed = Deed(
        action="key.update",
        target_kind="key",
        target_id="k1",
        target_name="ci",
        project_id="prj_1",
        before={"limits": ["1/day"]},
        after={"limits": ["2/day"]},
    )
    world.trail.note(ALICE, deed)

    [row] = csv_rows(world)

    assert {name: value for name, value in row.items() if name not in {"time", "hash"}} == {
        "number": "1",
        "action": "key.update",
        "result": "done",
        "reason": "",
        "actor_kind": "user",
        "actor_id": "usr_alice",
        "actor_name": "alice",
        "credential_kind": "key",
        "credential_id": "alices",
        "target_kind": "key",
        "target_id": "k1",
        "target_name": "ci",
        "project_id": "prj_1",
        "before": '{"limits":["1/day"]}',
        "after": '{"limits":["2/day"]}',
        "address": "",
        "user_agent": "",
        "request_id": "",
    }
    assert row["hash"] == hash_of(canonical(world.records()[0]))


def test_an_export_that_cannot_be_signed_breaks_off_before_its_end(world):
    world.history()
    (world.data / "secrets" / "audit.json").unlink()

    pieces = world.exporting.lines(AuditFilter())

    with pytest.raises(AuditKeyError):
        list(pieces)


def test_records_that_come_while_it_is_exported_are_not_in_it(world):
    world.history()
    pieces = world.exporting.lines(AuditFilter())
    first = next(pieces)
    world.act("later")

    report = world.verify_export(first + b"".join(pieces))

    assert (report.is_intact, report.last) == (True, 12)
