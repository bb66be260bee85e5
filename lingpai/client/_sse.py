"""Server-sent events, decoded by hand: bytes in as they arrive, events out.

The rules are those of https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
(lines end in LF, CR or CRLF; `:` begins a comment; an empty line ends an event; several `data` lines are joined).
"""

import re
from dataclasses import dataclass, field
from typing import Final

MAX_EVENT_BYTES: Final = (
    32 * 1024 * 1024
)  # a base64 image fits; a server that never ends a line does not fill memory

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLargeError(ValueError):
    """One event is larger than `MAX_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `name` is "message" when the server gave none."""

    name: str
    data: str


@dataclass(slots=True)
class EventDecoder:
    """Keeps what is not complete yet between two pieces of a stream."""

    _rest: bytearray = field(default_factory=bytearray)
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    _size: int = 0
    _at_start: bool = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes. Raises `EventTooLargeError`."""
        self._rest += piece
        events = []
        for line in self._take_lines():
            event = self._take_line(line)
            if event is not None:
                events.append(event)
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"An event is larger than {MAX_EVENT_BYTES} bytes.")
        return events

    def finish(self) -> list[Event]:
        """The event that the end of the stream cut off before its empty line, if there is one.

        The standard drops it; but some servers close right after an error's line, and that must not be lost.
        """
        return self.feed(b"\n\n")

    def _take_lines(self) -> list[str]:
        lines = []
        begin = 0
        for end in _LINE_END.finditer(self._rest):
            # A CR that ends the piece may be the first half of a CRLF.
            if end[0] == b"\r" and end.end() == len(self._rest):
                break
            lines.append(self._rest[begin : end.start()].decode(errors="replace"))
            begin = end.end()
        del self._rest[:begin]
        return lines

    def _take_line(self, line: str) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix("\ufeff")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")  # a comment has an empty name
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name = ""
        self._data = []
        self._size = 0
        return event
