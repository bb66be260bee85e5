"""An exported file: whatever somebody does to it is found, and where; the public key is all that is needed."""

import json
from io import BytesIO

import pytest
from audit_world import messages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lingpai.audit.canonical import canonical, hash_of, time_in
from lingpai.audit.file_verification import verify_file
from lingpai.audit.signing import PublicKeys
from lingpai.audit.store import AuditFilter

# Of the history: the line `begin`, records with their checkpoints behind 4, 8 and 10, and the line `end`.
LINES = 17


@pytest.fixture
def exported(world):
    world.history()
    return world.export()


def export_of_history(world):
    """Made once, however many examples are tried."""
    if not world.records():
        world.history()
        (world.data / "audit.jsonl").write_bytes(world.export())
    return (world.data / "audit.jsonl").read_bytes()


def lines_of(content):
    return content.splitlines(keepends=True)


def place_of(lines, number):
    """Where the record with this number stands, from 0."""
    return next(
        place
        for place, line in enumerate(lines)
        if b'"type":"record"' in line and json.loads(line)["number"] == number
    )


def changed(line, **fields):
    """A line with other fields, and a hash that fits."""
    record = json.loads(line) | fields
    record.pop("hash")
    return f"{canonical({**record, 'hash': hash_of(canonical(record))})}\n".encode()


def rechained(lines):
    """All hashes worked out anew."""
    previous, new = "0" * 64, []
    for line in lines:
        if json.loads(line)["type"] != "record":
            new.append(line)
            continue
        new.append(changed(line, previous=previous))
        previous = json.loads(new[-1])["hash"]
    return new


def test_an_untouched_export_is_intact(world, exported):
    report = world.verify_export(exported)

    assert report.is_intact
    assert (report.records, report.first, report.last, report.checkpoints) == (12, 1, 12, 3)
    assert report.signed_up_to == 12
    assert len(lines_of(exported)) == LINES


def test_one_changed_byte_is_found_and_located(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    lines[place] = lines[place].replace(b"key-6", b"key-7")

    report = world.verify_export(b"".join(lines))

    assert messages(report) == [(6, "was changed: its hash is another one")]
    assert report.findings[0].line == place + 1
    assert report.findings[0].time == world.records()[5]["time"]


def test_a_byte_that_changes_no_meaning_is_found_as_well(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    lines[place] = lines[place].replace(b'"number":6', b'"number": 6')

    report = world.verify_export(b"".join(lines))

    assert report.findings[0].line == place + 1
    assert "not written as any line" in report.findings[0].message


def test_a_removed_line_is_found_and_located(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    del lines[place]

    report = world.verify_export(b"".join(lines))

    assert messages(report) == [(7, "record 6 is missing before this one")]
    assert report.findings[0].line == place + 1


def test_two_swapped_lines_are_found_and_located(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    lines[place], lines[place + 1] = lines[place + 1], lines[place]

    report = world.verify_export(b"".join(lines))

    assert messages(report) == [
        (7, "record 6 is missing before this one"),
        (6, "stands behind record 7: it was moved or put in"),
    ]


@pytest.mark.parametrize("kept", range(1, LINES))
def test_a_removed_tail_is_found_and_located(world, exported, kept):
    lines = lines_of(exported)[:kept]

    report = world.verify_export(b"".join(lines))

    last = max((json.loads(line).get("number", 0) for line in lines), default=0)
    where = f"behind record {last}" if last else "at its beginning"
    assert messages(report) == [(last or None, f"the end of the file is missing: it breaks off {where}")]


def test_a_tail_removed_in_the_middle_of_a_line_is_found(world, exported):
    report = world.verify_export(exported[:-100])

    assert [finding.line for finding in report.findings] == [LINES, LINES]


def test_a_tail_removed_in_front_of_the_end_is_found(world, exported):
    lines = lines_of(exported)
    del lines[-2]

    assert messages(world.verify_export(b"".join(lines))) == [
        (None, "the file ends with record 11, and ended with record 12 when it was exported")
    ]


def test_a_removed_beginning_is_found(world, exported):
    lines = lines_of(exported)
    del lines[1:4]

    assert messages(world.verify_export(b"".join(lines))) == [
        (None, "the file begins with record 4, and began with record 1 when it was exported")
    ]


def test_a_removed_checkpoint_is_found(world, exported):
    lines = [line for line in lines_of(exported) if b'"number":8' not in line or b"checkpoint" not in line]

    assert "it had 3 checkpoints, and has 2" in messages(world.verify_export(b"".join(lines)))[0][1]


def test_an_inserted_line_is_found_and_located(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    lines.insert(place + 1, changed(lines[place], number=6, reason="put in"))

    report = world.verify_export(b"".join(lines))

    assert messages(report) == [(6, "stands behind record 6: it was moved or put in")]
    assert report.findings[0].line == place + 2


def test_an_inserted_line_with_all_hashes_worked_out_anew_contradicts_the_next_checkpoint(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 6)
    lines[place] = changed(lines[place], reason="something else")

    report = world.verify_export(b"".join(rechained(lines)))

    assert messages(report)[0] == (
        8,
        "records 5 to 8 are not those that were signed: at least one was changed or put in",
    )


def test_a_change_behind_the_last_checkpoint_is_found_by_the_end(world, exported):
    lines = lines_of(exported)
    place = place_of(lines, 11)
    lines[place] = changed(lines[place], reason="something else")

    report = world.verify_export(b"".join(rechained(lines)))

    assert messages(report) == [
        (
            None,
            "at least one line was changed since it was exported, among records 11 to 12, and hashes worked out anew",
        )
    ]


def test_an_end_of_another_file_is_found(world, exported):
    world.act("key-13")
    other = world.export()

    report = world.verify_export(b"".join([*lines_of(exported)[:-1], lines_of(other)[-1]]))

    assert messages(report)[0][1] == (
        "the file ends with record 12, and ended with record 13 when it was exported"
    )


def test_what_stands_behind_the_end_is_found(world, exported):
    report = world.verify_export(exported + lines_of(exported)[1])

    assert [(finding.line, finding.message) for finding in report.findings] == [
        (LINES + 1, "stands behind the end of the export")
    ]


def test_somebody_elses_key_vouches_for_nothing(world, exported, tmp_path):
    report = verify_file(BytesIO(exported), PublicKeys([b"\x01" * 32]))

    assert [message for _, message in messages(report)] == [
        *["its checkpoint is not signed by a known key"] * 3,
        "the end of the file is not signed by a known key",
    ]


def test_an_export_of_a_time_is_whole(world):
    world.history()
    since = world.records()[5]["time"]
    content = world.export(AuditFilter(since=time_in(since), until=time_in(world.records()[9]["time"])))
    report = world.verify_export(content)

    assert (report.is_intact, report.first, report.last, report.checkpoints) == (True, 6, 9, 1)


def test_an_export_with_gaps_is_verified_line_by_line(world):
    world.history()
    world.act("key-3")
    content = world.export(AuditFilter(target="key-3"))

    report = world.verify_export(content)
    assert (report.is_intact, report.records, report.checkpoints) == (True, 2, 0)

    damaged = world.verify_export(content.replace(b'"address":null', b'"address":"1.2.3.4"', 1))
    assert messages(damaged) == [(3, "was changed: its hash is another one")]


@pytest.mark.parametrize("number", ["6", None, 6.0, True, [], 10**100])
def test_a_line_with_a_number_that_is_none_is_found(world, exported, number):
    lines = lines_of(exported)
    place = place_of(lines, 1)
    lines[place] = changed(lines[place], number=number)

    assert not world.verify_export(b"".join(lines)).is_intact
    assert not world.verify_export(lines[0] + lines[place] + lines[-1]).is_intact


def test_an_empty_export_is_intact(world):
    assert world.verify_export(world.export()).is_intact


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b"\xff\xfe\n", b"null\n", b"[" * 100_000, b'{"type":"record"}\n' * 3]
)
def test_what_is_no_export_is_found(world, content):
    assert not world.verify_export(content).is_intact


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_to_the_bytes_is_found(world, data):
    exported = export_of_history(world)
    start = data.draw(st.integers(0, len(exported) - 1))
    stop = data.draw(st.integers(start, min(len(exported), start + 2000)))
    tampered = exported[:start] + data.draw(st.binary(max_size=30)) + exported[stop:]

    assert (tampered == exported) or not world.verify_export(tampered).is_intact


@given(order=st.permutations(range(LINES)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_order_of_the_lines_is_found(world, order):
    lines = lines_of(export_of_history(world))

    report = world.verify_export(b"".join(lines[place] for place in order))

    assert report.is_intact == (list(order) == list(range(LINES)))
