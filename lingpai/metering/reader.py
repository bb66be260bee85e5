"""Reading the journal: records in order from a position, past whatever is damaged."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from lingpai.metering.framing import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    find_frame,
    split_frames,
    unpack_header,
)
from lingpai.metering.records import UsageRecord
from lingpai.metering.segments import Position, list_segments, segment_path, unreadable_path

CHUNK_BYTES: Final = 256 * 1024

# Between a failed write and its truncation the newest segment ends in a torn frame for some microseconds. One that is
# still there after this long is damage.
_PATIENCE_S: Final = 1.0


class JournalReader:
    """Reads segments in order. `position` is the end of what `read` has returned.

    Damage is stepped over, told to `report` and counted in `skipped`: a frame torn by a crash at the end of a finished
    segment, a frame that does not fit its checksum, a payload that is no usage record, a segment without its header.
    A segment is finished when there is a newer one. Files are left as they are: what is read is not stored yet.
    `is_behind` says that there is more to read already.
    """

    def __init__(self, directory: Path, position: Position, report: Callable[[str], None]) -> None:
        self.skipped = 0
        self.is_behind = False
        self._directory = directory
        self._report = report
        self._segment, self._offset = position
        self._descriptor: int | None = None
        self._is_unreadable = False
        self._salt = 0
        self._stuck_since: float | None = None
        self._decode = msgspec.msgpack.Decoder(UsageRecord).decode

    @property
    def position(self) -> Position:
        return self._segment, self._offset

    def read(self) -> list[UsageRecord]:
        """The next records, some thousands at most; none when everything written so far has been read."""
        while True:
            # Asked before reading: what is written before a newer segment appears is then seen below.
            newer = self._next_segment()
            chunk = self._read_chunk()
            self.is_behind = newer is not None or len(chunk) == CHUNK_BYTES
            payloads, size = split_frames(chunk, self._salt)
            if payloads:
                self._offset += size
                self._stuck_since = None
                return self._decode_all(payloads)
            if chunk and self._skip_damage(is_finished=newer is not None):
                continue
            if newer is None:
                self.is_behind = False
                return []
            self._open(newer)

    def close(self) -> None:
        """Close the segment that is open; the next read opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _next_segment(self) -> int | None:
        """The segment to read after this one; the present one itself when it has not been opened yet."""
        for number in list_segments(self._directory):
            is_unopened = self._descriptor is None and not self._is_unreadable
            if number > self._segment or (number == self._segment and is_unopened):
                return number
        return None

    def _read_chunk(self) -> bytes:
        if self._descriptor is None:
            return b""
        return os.pread(self._descriptor, CHUNK_BYTES, self._offset)

    def _open(self, number: int) -> None:
        self.close()
        path = segment_path(self._directory, number)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if number != self._segment:
            self._segment, self._offset = number, HEADER_BYTES
        salt = unpack_header(os.pread(self._descriptor, HEADER_BYTES, 0))
        self._is_unreadable = salt is None
        if salt is None:
            self._skip(f"has no valid header and will be set aside as {unreadable_path(path).name}")
            self.close()
        else:
            self._salt = salt

    def _decode_all(self, payloads: list[bytes]) -> list[UsageRecord]:
        decode = self._decode
        try:
            return [decode(payload) for payload in payloads]
        except msgspec.MsgspecError:
            return [record for payload in payloads if (record := self._decode_one(payload)) is not None]

    def _decode_one(self, payload: bytes) -> UsageRecord | None:
        try:
            return self._decode(payload)
        except msgspec.MsgspecError as error:
            self._skip(f"holds something that is not a usage record: {error}")
            return None

    # Damage

    def _skip_damage(self, *, is_finished: bool) -> bool:
        """Move to the next good frame, or to the end of a finished segment. False when there is nothing to do yet."""
        if not is_finished and not self._has_been_stuck():
            return False
        assert self._descriptor is not None  # noqa: S101  there was a chunk, so the segment is open
        size = os.fstat(self._descriptor).st_size
        found = self._find_frame(size)
        if found is None and not is_finished:
            return False  # perhaps the rest of a frame is still to come
        end = size if found is None else found
        self._skip(f"is damaged: skipped {end - self._offset} bytes at {self._offset}")
        self._offset = end
        return True

    def _has_been_stuck(self) -> bool:
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since = now
        if now - self._stuck_since < _PATIENCE_S:
            return False
        self._stuck_since = now
        return True

    def _find_frame(self, size: int) -> int | None:
        """Where the next good frame begins, looking at a piece of the file at a time."""
        assert self._descriptor is not None  # noqa: S101  see _skip_damage
        start = self._offset + 1
        while start < size:
            piece = os.pread(self._descriptor, CHUNK_BYTES, start)
            found = find_frame(piece, 0, self._salt)
            if found is not None:
                return start + found
            # the next piece overlaps, because a frame may begin in this one and end there
            start += max(1, len(piece) - MAX_FRAME_BYTES) if len(piece) == CHUNK_BYTES else len(piece)
            if not piece:
                return None
        return None

    def _skip(self, what: str) -> None:
        self.skipped += 1
        self._report(f"usage journal: segment {self._segment} {what}")
