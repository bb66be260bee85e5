"""Raw pixels as a PNG file (ISO/IEC 15948), so that a picture can be answered where no imaging library is installed."""

import struct
import zlib
from typing import Final

_COLOR_TYPE: Final = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels (gray, gray and alpha, RGB, RGBA) to the header's colour type (section 11.2.1)."""


def encode_png(pixels: bytes, *, width: int, height: int, channels: int) -> bytes:
    """A PNG of `pixels`: 8 bits per channel, rows from the top, nothing between them.

    Raises ValueError when there are not ``width * height * channels`` bytes or `channels` is not 1 to 4.
    """
    if channels not in _COLOR_TYPE or width < 1 or height < 1:
        raise ValueError(f"{width} x {height} with {channels} channels is no picture")
    row = width * channels
    if len(pixels) != row * height:
        raise ValueError(f"{len(pixels)} bytes are not {width} x {height} pixels of {channels} channels")
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPE[channels], 0, 0, 0)
    # Each row begins with its filter; 0 leaves it as it is (section 9.2).
    rows = b"".join(b"\x00" + pixels[start : start + row] for start in range(0, len(pixels), row))
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
