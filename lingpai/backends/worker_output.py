"""What a worker prints, as lines for the log, each with its level."""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

LONGEST_LINE: Final = 8192
"""Bytes of a line that are kept; the rest is left out and the cut marked."""

BURST: Final = 1_000_000
RATE: Final = 64_000
"""Bytes of output that are logged at once, and per second in the long run; what is more is left out, and counted."""

NOTICE_EVERY_S: Final = 10.0
_COST_OF_A_LINE: Final = 64
_LAST_LINES: Final = 20
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


class WorkerOutput:
    """Bytes in as they come, lines with their levels out, no more than a log can take."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lines = LineSplitter()
        self._levels = LevelReader()
        self._left, self._at = float(BURST), now()
        self._left_out = 0
        self._notice_at = 0.0
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def is_too_much(self) -> bool:
        """Whether output is being left out, so that reading it is not urgent."""
        return self._left_out > 0

    def feed(self, data: bytes) -> list[tuple[int, str]]:
        """The lines to log because of `data`."""
        now = self._now()
        self._left = min(BURST, self._left + (now - self._at) * RATE)
        self._at = now
        if self._left <= 0 or (self._left_out and self._left < BURST / 10):
            return self._leave_out(len(data), now)
        notice = self._resumed()
        if notice:  # in the middle of a line
            data = data.partition(b"\n")[2]
        self._left -= len(data) + _COST_OF_A_LINE * data.count(b"\n")
        return notice + self._read(self._lines.feed(data))

    def end(self) -> list[tuple[int, str]]:
        """What is left to log when the output has ended."""
        return self._read(self._lines.end()) + self._resumed()

    def _read(self, lines: list[str]) -> list[tuple[int, str]]:
        self.last_lines.extend(lines)
        return [self._levels.read(line) for line in lines]

    def _leave_out(self, count: int, now: float) -> list[tuple[int, str]]:
        lines = [] if self._left_out else self._read(self._lines.end())
        self._left_out += count
        if now < self._notice_at:
            return lines
        self._notice_at = now + NOTICE_EVERY_S
        text = f"… it prints more than {RATE // 1000} kB a second; what is too much is left out"
        return [*lines, (logging.WARNING, text)]

    def _resumed(self) -> list[tuple[int, str]]:
        left_out, self._left_out = self._left_out, 0
        return [(logging.WARNING, f"… {left_out:,} bytes of output were left out")] if left_out else []


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
