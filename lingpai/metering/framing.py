"""The journal's format on disk: pure functions on bytes, no files.

A segment is a header and then frames, all integers little-endian::

    header   8 bytes "LPUSAGE" and a line feed   u32 version   u32 salt
    frame    u32 length of payload  u32 CRC-32 of payload, seeded with the salt   payload (msgpack)

The salt is drawn at random by each writer. It keeps bytes chosen by a caller (they end up in payloads) from passing
for a frame when the reader looks for the next good one after damage.
"""

import re
import struct
from typing import Final
from zlib import crc32

_MAGIC: Final = b"LPUSAGE\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sII")
_FRAME: Final = struct.Struct("<II")

HEADER_BYTES: Final = _HEADER.size
MAX_PAYLOAD_BYTES: Final = 0xFFFF
MAX_FRAME_BYTES: Final = _FRAME.size + MAX_PAYLOAD_BYTES

pack_frame_header = _FRAME.pack

# A length that a frame can have: at most 65535, so its two high bytes are zero, and not zero.
_POSSIBLE_FRAME = re.compile(rb"(?=(?!\x00\x00)..\x00\x00)", re.DOTALL)


def pack_header(salt: int) -> bytes:
    """The first bytes of a segment."""
    return _HEADER.pack(_MAGIC, _VERSION, salt)


def unpack_header(header: bytes) -> int | None:
    """The salt in a segment's header, or None when the header is not one of this version."""
    if len(header) != HEADER_BYTES:
        return None
    magic, version, salt = _HEADER.unpack(header)
    return salt if (magic, version) == (_MAGIC, _VERSION) else None


def split_frames(chunk: bytes, salt: int) -> tuple[list[bytes], int]:
    """The payloads of the frames at the start of `chunk`, and how many bytes they take.

    Stops at the first frame that is incomplete or damaged.
    """
    payloads = []
    start, size = 0, len(chunk)
    unpack = _FRAME.unpack_from
    while start + _FRAME.size <= size:
        length, checksum = unpack(chunk, start)
        end = start + _FRAME.size + length
        if end > size or not 0 < length <= MAX_PAYLOAD_BYTES:
            break
        payload = chunk[start + _FRAME.size : end]
        if crc32(payload, salt) != checksum:
            break
        payloads.append(payload)
        start = end
    return payloads, start


def find_frame(chunk: bytes, start: int, salt: int) -> int | None:
    """Where the first good frame at or after `start` begins, or None when `chunk` holds none that is whole."""
    for match in _POSSIBLE_FRAME.finditer(chunk, start):
        begin = match.start()
        if begin + _FRAME.size > len(chunk):
            break
        length, checksum = _FRAME.unpack_from(chunk, begin)
        end = begin + _FRAME.size + length
        if end <= len(chunk) and crc32(chunk[begin + _FRAME.size : end], salt) == checksum:
            return begin
    return None
