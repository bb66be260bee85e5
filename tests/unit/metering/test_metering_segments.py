"""Segment files and their order."""

import os
import time

from lingpai.metering.framing import HEADER_BYTES
from lingpai.metering.segments import START, create_segment, journal_end, list_segments, segment_path


def make(directory) -> int:
    number, descriptor = create_segment(directory, salt=1)
    os.close(descriptor)
    return number


def test_numbers_ascend_and_follow_the_clock(tmp_path):
    """A later segment has a higher number, also within one millisecond."""
    before = int(time.time() * 1000)

    numbers = [make(tmp_path) for _ in range(5)]

    assert numbers == sorted(set(numbers)) == list_segments(tmp_path)
    assert numbers[0] >= before


def test_a_number_is_never_below_an_existing_one(tmp_path):
    """When the clock has been set back, the journal still goes on after its newest segment."""
    future = int(time.time() * 1000) + 10**9
    segment_path(tmp_path, future).touch()

    assert make(tmp_path) == future + 1


def test_other_files_are_not_segments(tmp_path):
    """The lock, a segment without a name yet and one set aside are not read."""
    for name in ("ingester.lock", "000000000000001.new", "000000000000002.unreadable", "x.journal"):
        (tmp_path / name).touch()

    assert list_segments(tmp_path) == []
    assert journal_end(tmp_path) == START


def test_the_end_is_after_the_last_byte_of_the_newest_segment(tmp_path):
    """That is what an ingester loads before it exits."""
    make(tmp_path)
    number = make(tmp_path)

    assert journal_end(tmp_path) == (number, HEADER_BYTES)


def test_only_the_owner_can_read_a_segment(tmp_path):
    """Usage records tell who called what from where."""
    number = make(tmp_path)

    assert segment_path(tmp_path, number).stat().st_mode & 0o777 == 0o600
