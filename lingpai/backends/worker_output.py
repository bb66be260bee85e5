"""What a worker prints, as lines for the log, each with its level."""

import logging
import re
from collections.abc import Mapping
from typing import Final

LONGEST_LINE: Final = 8192
"""Bytes of a line that are kept; the rest is left out and the cut marked."""

_CUT: Final = " … (cut)"
# What could end a line, move the cursor, colour or reorder text where a log is read, so that a model could forge
# a line or hide one: control characters, Unicode's line ends and its directional overrides.
_UNSAFE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_LEVELS: Final[Mapping[str, int]] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
}
# A record of Python's logging as the runtime formats it ("ERROR name: text"), or the runtime's word on a failed call.
_RECORD: Final = re.compile(rf"({'|'.join(_LEVELS)}) (?=\S+: |call \S+ to )")
_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINED: Final = ("During handling of the above exception", "The above exception was the direct cause")


class LineSplitter:
    """Bytes in as they come, whole lines out, each fit for one line of a log. Memory is bounded by one line."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *ended, begun = data.split(b"\n")
        lines = []
        for part in ended:
            self._add(part)
            lines.append(self._take())
        self._add(begun)
        return lines

    def end(self) -> list[str]:
        """The line that was begun and never ended, if there is one."""
        return [self._take()] if self._begun else []

    def _add(self, part: bytes) -> None:
        room = LONGEST_LINE - len(self._begun)
        self._begun += part[:room]
        self._is_cut = self._is_cut or len(part) > room

    def _take(self) -> str:
        line = printable(bytes(self._begun)) + (_CUT if self._is_cut else "")
        self._begun.clear()
        self._is_cut = False
        return line


class LevelReader:
    """Tells the level of each line: a record has its own, what continues it shares it, all else is INFO.

    A record is continued by indented and empty lines (the runtime indents), and by a traceback that is not indented, up to the line that names the exception.
    """

    def __init__(self) -> None:
        self._level = logging.INFO
        self._is_in_traceback = False

    def read(self, line: str) -> tuple[int, str]:
        """The level of `line`, and its text without the word for the level."""
        record = _RECORD.match(line)
        if record is not None:
            self._level = _LEVELS[record[1]]
            self._is_in_traceback = False
            return self._level, line[record.end() :]
        if line.startswith(_TRACEBACK):
            self._is_in_traceback = True
        elif line.strip() and not line.startswith((" ", "\t", *_CHAINED)):
            if not self._is_in_traceback:
                self._level = logging.INFO
            self._is_in_traceback = False  # this line names the exception
        return self._level, line


def printable(line: bytes) -> str:
    """One line of output as text in which nothing controls a terminal or a log.

    Of a line that was drawn over with carriage returns (progress bars) the last state stays.
    """
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return escaped(shown.decode("utf-8", "backslashreplace"))


def escaped(text: str) -> str:
    r"""`text` with control characters written as ``\x1b`` or ``\u2028``; tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
