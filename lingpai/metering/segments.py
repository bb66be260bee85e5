"""Segment files: their names, their order, how a new one begins."""

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final

from lingpai.metering.framing import HEADER_BYTES, pack_header, unpack_header

Position = tuple[int, int]
"""A place in the journal: segment number, offset in bytes. Positions compare as they were written."""

START: Final[Position] = (0, 0)

_SUFFIX = ".journal"
_NEW_SUFFIX = ".new"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC


def segment_path(directory: Path, number: int) -> Path:
    """The file of segment `number`."""
    return directory / f"{number:015d}{_SUFFIX}"


def unreadable_path(path: Path) -> Path:
    """Where a segment without a valid header is set aside: its contents may be good, so a person should look at it."""
    return path.with_suffix(".unreadable")


def remove_segment(path: Path) -> None:
    """Delete a segment that is loaded, or set it aside when it cannot be read. Raises OSError but FileNotFoundError."""
    with contextlib.suppress(FileNotFoundError):
        with path.open("rb") as file:
            is_readable = unpack_header(file.read(HEADER_BYTES)) is not None
        if is_readable:
            path.unlink()
        else:
            path.rename(unreadable_path(path))


def list_segments(directory: Path) -> list[int]:
    """The numbers of the segments in `directory`, oldest first."""
    names = (name.removesuffix(_SUFFIX) for name in os.listdir(directory) if name.endswith(_SUFFIX))  # noqa: PTH208  asked 20 times a second; no Path objects needed
    return sorted(int(name) for name in names if name.isdecimal())


def journal_end(directory: Path) -> Position:
    """The position after everything that is in `directory` now."""
    segments = list_segments(directory)
    if not segments:
        return START
    return segments[-1], segment_path(directory, segments[-1]).stat().st_size


def create_segment(directory: Path, salt: int) -> tuple[int, int]:
    """Begin the next segment: its number and a descriptor to append with. Raises OSError.

    The number is the time in milliseconds, or one more than the newest there is: the ingester's position in the
    database must mean the same place even when somebody has emptied the directory in between.
    The file gets its name when its header is complete, so that a reader never sees half of one.
    """
    newest = max(list_segments(directory), default=0)
    number = max(newest + 1, int(time.time() * 1000))
    path = segment_path(directory, number)
    unnamed = path.with_suffix(_NEW_SUFFIX)
    descriptor = os.open(unnamed, _FLAGS, 0o600)
    try:
        header = pack_header(salt)
        if os.write(descriptor, header) != len(header):
            raise OSError(errno.ENOSPC, "no room for a segment's header")
        unnamed.rename(path)
    except OSError:
        os.close(descriptor)
        unnamed.unlink(missing_ok=True)
        raise
    return number, descriptor
