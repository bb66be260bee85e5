"""Server-sent events as bytes: cutting a stream at event borders without parsing what need not be parsed.

Source: WHATWG HTML, section 9.2 (server-sent events). Lines end in LF or CRLF; an event ends at an empty line.
"""

from typing import Final

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""An event longer than this is garbage: the stream is ended rather than kept in memory."""

DONE: Final = b"data: [DONE]\n\n"


class EventTooLongError(ValueError):
    """The backend sent more than `MAX_EVENT_BYTES` without ending an event."""


class EventCutter:
    """Hands on whole events only, so that one can be looked at, changed or dropped before it is sent.

    The usual piece ends at an event border and passes as it came, uncopied.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: bytes | bytearray = b""
        """The beginning of an event whose end is still to come."""

    def feed(self, piece: bytes) -> bytes:
        """All whole events up to now, as one run of bytes (maybe empty). Raises EventTooLongError."""
        if self.held:
            return self._go_on(piece)
        if piece.endswith(b"\n\n"):
            return piece
        end = _last_end(piece, 0)
        self._hold(piece[end:])
        return piece[:end]

    def _go_on(self, piece: bytes) -> bytes:
        """The same when something is held. It is neither copied nor searched again for every piece of a long event."""
        held = self.held if isinstance(self.held, bytearray) else bytearray(self.held)
        searched = max(len(held) - 3, 0)
        held += piece
        end = _last_end(held, searched)
        run = bytes(memoryview(held)[:end]) if end else b""
        self._hold(held[end:] if end else held)
        return run

    def _hold(self, rest: bytes | bytearray) -> None:
        self.held = rest
        if len(rest) > MAX_EVENT_BYTES:
            raise EventTooLongError

    def rest(self) -> bytes:
        """What was left without an end when the stream ended."""
        rest, self.held = bytes(self.held), b""
        return rest


def _last_end(piece: bytes | bytearray, start: int) -> int:
    """Where the last whole event ends, looking from `start` on; 0 when none does.

    The empty line that ends an event may be written LF LF, CRLF CRLF or a mixture: all end in LF LF or LF CRLF.
    """
    plain, mixed = piece.rfind(b"\n\n", start), piece.rfind(b"\n\r\n", start)
    return max(plain + 2 if plain >= 0 else 0, mixed + 3 if mixed >= 0 else 0)


def split_events(run: bytes) -> list[bytes]:
    """Single events, each with its closing empty line, of a run of whole events."""
    if b"\r" in run:
        run = run.replace(b"\r\n", b"\n")
    return [event + b"\n\n" for event in run.split(b"\n\n") if event]


def event_data(event: bytes) -> bytes | None:
    """The `data` of one event (several data lines are joined by LF), or None when it has none (a comment)."""
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in event.splitlines()
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


def data_event(data: bytes) -> bytes:
    """One event that carries `data`."""
    return b"data: " + data + b"\n\n"
