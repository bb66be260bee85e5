"""A transport that hands uvloop's TLS no more than it can pass on, so that what waits for a caller can be seen.

uvloop encrypts everything at once and gives it to its socket, whose queue nobody can ask for: to callers who do not read,
an answer of megabytes would seem sent. And closing ends the connection after a time, whatever is still in that queue. So
what the socket does not take yet waits here, in clear, and closing waits until it has been taken.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from lingpai.lane.kernel import unacknowledged_bytes

PIECE_BYTES: Final = 64 * 1024
FEW_BYTES: Final = 16 * 1024
"""With so little in the kernel there is nothing in the queue: the kernel takes more than that at a time."""
LOOK_S: Final = 0.1


class PacedTransport(asyncio.Transport):
    """Around `inner`, a TLS transport. The protocol says `pause` and `resume` when `inner` tells it so."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._is_paused = self._is_closing = False
        inner.set_write_buffer_limits(high=PIECE_BYTES, low=0)

    # -- what the protocol tells

    def pause(self) -> None:
        """`inner` has more than it can pass on."""
        self._is_paused = True

    def resume(self) -> bool:
        """`inner` has passed all of it on. Answers whether nothing waits any more."""
        self._is_paused = False
        self._pump()
        return not self._is_paused

    def drop(self) -> None:
        """Nobody is there any more."""
        self._backlog.clear()
        self._backlog_bytes = 0

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep until it can be sent; nothing after `close`."""
        if self._is_closing:
            return
        if len(data) <= PIECE_BYTES and not self._is_paused:
            self._inner.write(data)
            return
        self._backlog.append(memoryview(data))
        self._backlog_bytes += len(data)
        self._pump()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several, in order."""
        for data in list_of_data:
            self.write(data)

    def _pump(self) -> None:
        backlog = self._backlog
        while backlog and not self._is_paused:
            data = backlog.popleft()
            piece, rest = data[:PIECE_BYTES], data[PIECE_BYTES:]
            if rest:
                backlog.appendleft(rest)
            self._backlog_bytes -= len(piece)
            self._inner.write(piece)  # `pause` may be called meanwhile
        if self._is_closing and not backlog:
            self._close_when_taken()

    def get_write_buffer_size(self) -> int:
        """How much waits here and in `inner`."""
        return self._backlog_bytes + self._inner.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connections here."""
        return False

    # -- closing

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_closing or self._inner.is_closing()

    def close(self) -> None:
        """Close once everything has been taken; read nothing from now on."""
        if self._is_closing or self._inner.is_closing():
            return
        self._is_closing = True
        self._inner.pause_reading()
        if not self._backlog:
            self._close_when_taken()

    def _close_when_taken(self) -> None:
        if self._inner.is_closing():
            return
        if self._inner.get_write_buffer_size() or unacknowledged_bytes(self._inner) >= FEW_BYTES:
            self._loop.call_later(LOOK_S, self._close_when_taken)
        else:
            self._inner.close()

    def abort(self) -> None:
        """Close at once, whatever waits."""
        self.drop()
        self._inner.abort()

    # -- the rest

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What `inner` knows of the connection."""
        return self._inner.get_extra_info(name, default)

    def is_reading(self) -> bool:
        """Whether the protocol is told of what comes."""
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        """Tell the protocol of nothing for now."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Tell it again, unless the connection is to be closed."""
        if not self._is_closing:
            self._inner.resume_reading()
