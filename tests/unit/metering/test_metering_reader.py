"""Reading the journal: in order, past damage, never a record twice or one that is not whole."""

import pytest

from lingpai.metering import reader as reader_module
from lingpai.metering.framing import HEADER_BYTES
from lingpai.metering.reader import JournalReader
from lingpai.metering.segments import START


@pytest.fixture
def reports():
    return []


@pytest.fixture
def open_reader(journal_directory, reports):
    readers = []

    def open_at(position=START):
        readers.append(JournalReader(journal_directory, position, reports.append))
        return readers[-1]

    yield open_at
    for reader in readers:
        reader.close()


@pytest.fixture
def records(make_record):
    return lambda count: [make_record(request_id=f"r{number}") for number in range(count)]


def read_ids(reader) -> list[str]:
    found = []
    while batch := reader.read():
        found += [record.request_id for record in batch]
    return found


def ids(count: int, *without: int) -> list[str]:
    return [f"r{number}" for number in range(count) if number not in without]


def frame_starts(path, count: int) -> list[int]:
    """Where the frames of a segment with `count` equally long records begin."""
    size = (path.stat().st_size - HEADER_BYTES) // count
    return [HEADER_BYTES + number * size for number in range(count)]


def overwrite(path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_records_come_in_order_across_segments(write_segment, records, open_reader, reports):
    """And then nothing, without any report."""
    write_segment(records(3))
    write_segment([])
    write_segment(records(2))

    assert read_ids(open_reader()) == ids(3) + ids(2)
    assert reports == []


def test_an_empty_journal_has_no_records(open_reader):
    """A reader may start before the journal does."""
    reader = open_reader()

    assert reader.read() == []
    assert reader.position == START


def test_reading_goes_on_where_the_position_says(write_segment, records, open_reader, monkeypatch):
    """A second reader at the first one's position sees exactly the rest."""
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", 400)
    write_segment(records(9))
    write_segment(records(9))
    first = open_reader()
    begun = [record.request_id for record in first.read()]

    rest = read_ids(open_reader(first.position))

    assert begun + rest == ids(9) + ids(9)


def test_the_position_moves_to_a_new_empty_segment(write_segment, records, open_reader):
    """Whoever waits for the start of the newest segment waits for everything before it."""
    write_segment(records(1))
    newest = write_segment([])
    reader = open_reader()

    read_ids(reader)

    assert reader.position == (int(newest.stem), HEADER_BYTES)


def test_a_segment_deleted_meanwhile_is_behind_us(write_segment, records, open_reader):
    """The ingester may die between deleting a segment and reading the next."""
    old = write_segment(records(2))
    write_segment(records(1))
    reader = open_reader()
    reader.read()
    old.unlink()

    assert read_ids(open_reader(reader.position)) == ids(1)


def test_a_frame_still_being_written_is_waited_for(write_segment, records, open_reader, reports):
    """The end of the newest segment may be half a frame for a moment."""
    path = write_segment(records(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    reader = open_reader()
    assert read_ids(reader) == ids(2)
    assert read_ids(reader) == []

    path.write_bytes(whole)

    assert read_ids(reader) == ["r2"]
    assert reports == []


def test_a_torn_tail_of_a_finished_segment_is_skipped_and_reported(
    write_segment, records, open_reader, reports
):
    """That is what a crash in the middle of a write leaves."""
    path = write_segment(records(3))
    path.write_bytes(path.read_bytes()[:-5])
    write_segment(records(1))
    reader = open_reader()

    assert read_ids(reader) == [*ids(2), *ids(1)]
    assert reader.skipped == len(reports) == 1
    assert path.stem.lstrip("0") in reports[0]


@pytest.mark.parametrize("at", [0, 4, 8, 40])
def test_damage_in_the_middle_costs_one_record(write_segment, records, open_reader, reports, at):
    """Length, checksum or payload: reading goes on with the next good frame."""
    path = write_segment(records(5))
    write_segment([])
    overwrite(path, frame_starts(path, 5)[2] + at, b"\xff\xff")

    reader = open_reader()

    assert read_ids(reader) == ids(5, 2)
    assert reader.skipped == len(reports) == 1


def test_damage_across_pieces_of_the_search_is_passed(
    write_segment, records, open_reader, reports, monkeypatch
):
    """The next good frame may begin in one piece and end in the next."""
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", 500)
    monkeypatch.setattr(reader_module, "MAX_FRAME_BYTES", 300)
    path = write_segment(records(30))
    write_segment([])
    data = path.read_bytes()
    begin = data.index(b"r5", HEADER_BYTES) - 20
    end = data.index(b"r25", HEADER_BYTES)
    overwrite(path, begin, b"\xee" * (end - begin))

    found = read_ids(open_reader())

    assert found[0] == "r0"
    assert found[-4:] == ["r26", "r27", "r28", "r29"]
    assert len(reports) == 1


def test_damage_in_the_newest_segment_is_skipped_after_a_moment(
    write_segment, records, open_reader, reports, monkeypatch
):
    """It must not hold up everything until the next segment begins."""
    path = write_segment(records(3))
    overwrite(path, frame_starts(path, 3)[1] + 20, b"\xff\xff")
    reader = open_reader()
    assert read_ids(reader) == ["r0"]

    monkeypatch.setattr(reader_module, "_PATIENCE_S", 0.0)

    assert read_ids(reader) == ["r2"]
    assert len(reports) == 1


def test_a_power_failure_that_left_zeros_is_skipped(write_segment, records, open_reader, reports):
    """The file's size was on the disk, its last pages were not."""
    path = write_segment(records(2))
    with path.open("ab") as file:
        file.write(bytes(5000))
    write_segment(records(1))

    assert read_ids(open_reader()) == ids(2) + ids(1)
    assert len(reports) == 1


def test_a_position_beyond_the_end_is_the_end(write_segment, records, open_reader, reports):
    """After a power failure the database may know more of a segment than the segment itself."""
    path = write_segment(records(2))
    write_segment(records(1))

    reader = open_reader((int(path.stem), 10**9))

    assert read_ids(reader) == ids(1)
    assert reports == []


def test_a_segment_without_a_header_is_skipped(write_segment, records, open_reader, reports):
    """Also while it is the newest. It stays where it is, until somebody has stored that it could not be read."""
    path = write_segment(records(2))
    overwrite(path, 0, bytes(HEADER_BYTES))
    reader = open_reader()

    first = read_ids(reader)
    write_segment(records(1))

    assert (first, read_ids(reader)) == ([], ids(1))
    assert path.exists()
    assert len(reports) == 1


@pytest.mark.parametrize(
    "changes", [{"prompt_tokens": -1}, {"started_at": float("nan")}, {"end_reason": "bored"}]
)
def test_a_frame_that_is_no_usage_record_is_skipped(
    write_segment, make_record, open_reader, reports, changes
):
    """One bad record, whoever wrote it, keeps no other from arriving."""
    write_segment([make_record(request_id="r0"), make_record(**changes), make_record(request_id="r1")])

    assert read_ids(open_reader()) == ids(2)
    assert len(reports) == 1
