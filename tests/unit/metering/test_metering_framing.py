"""The journal's format: what is written is read back, and nothing else is."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from lingpai.metering.framing import (
    find_frame,
    pack_frame_header,
    pack_header,
    split_frames,
    unpack_header,
)

SALT = 0xC0FFEE


def frame(payload: bytes, salt: int = SALT) -> bytes:
    return pack_frame_header(len(payload), zlib.crc32(payload, salt)) + payload


payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(payloads)
def test_what_was_framed_is_read_back(items):
    """Frames in a row give their payloads in order."""
    chunk = b"".join(map(frame, items))

    assert split_frames(chunk, SALT) == (items, len(chunk))


@given(payloads, st.data())
def test_a_torn_frame_is_not_read_and_those_before_it_are(items, data):
    """However many bytes are there, exactly the whole frames come back."""
    chunk = b"".join(map(frame, items))
    cut = data.draw(st.integers(0, len(chunk)))

    found, size = split_frames(chunk[:cut], SALT)

    assert found == items[: len(found)]
    assert size == sum(len(frame(item)) for item in found) <= cut
    assert len(found) == len(items) or size + len(frame(items[len(found)])) > cut


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=40))
def test_the_next_good_frame_is_found_behind_garbage(garbage, payload):
    """The search after damage stops exactly at a frame."""
    chunk = garbage + frame(payload)

    assert find_frame(chunk, 0, SALT) == len(garbage)


def test_zeros_are_no_frames():
    """A file system may leave zeros after a power failure; a CRC of nothing is zero as well."""
    assert split_frames(bytes(64), SALT) == ([], 0)
    assert find_frame(bytes(64), 0, SALT) is None


def test_bytes_of_a_caller_do_not_pass_for_a_frame():
    """A frame made without knowing the salt is not taken for one."""
    forged = frame(b"forged", salt=0)

    assert find_frame(b"x" + forged, 0, SALT) is None


def test_a_header_gives_the_salt_back_and_others_are_refused():
    """Another version, another kind of file and half a header are no headers."""
    header = pack_header(SALT)

    assert unpack_header(header) == SALT
    assert unpack_header(header[:-1]) is None
    assert unpack_header(b"\0" * len(header)) is None
    assert unpack_header(header[:8] + b"\xff\0\0\0" + header[12:]) is None
