"""Connections on a TLS port, from the kernel's accept until their handshake is done and the front takes over.

Until its whole first message (the ClientHello) is there, a connection is a socket and nothing more, however slowly it comes:
it waits in the kernel, which wakes us when it is complete. So who connects and says nothing, or drips, holds no TLS state.
When too many wait like that, those who have waited longest go: honest clients send their first message at once.

Handshakes are bounded in number as well. When all places are taken, the next wait for one; and when somebody waits, a
handshake that takes longer than honest ones do has to go.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from lingpai.lane.doorman import MOST_LINGERING, Doorman
from lingpai.lane.front import HEAD_TIMEOUT_S, LINGER_S, Front

log = logging.getLogger("lingpai.lane")

MOST_WAITING: Final = 1024
MOST_HANDSHAKES: Final = 512
"""At a time; fewer where the bound on connections is small (`LEAST_SHARE`)."""
LEAST_SHARE: Final = 8
"""What of the bound on connections may wait: one in so many; and half as many be in a handshake."""
HURRY_S: Final = 2.0
"""How long a handshake may take while others wait for its place."""
SHUTDOWN_S: Final = 5.0
"""How long a client may take over its own end of a closed connection (`close_notify`). All was sent by then."""
ACCEPT_AT_ONCE: Final = 64
ACCEPT_PAUSE_S: Final = 0.5
SWEEP_S: Final = 0.5

_HANDSHAKE_RECORD: Final = 0x16
_RECORD_HEAD: Final = 5
_LARGEST_RECORD: Final = _RECORD_HEAD + (1 << 14)

_NOT_TLS_TEXT: Final = (
    b"This port speaks TLS: use https:// in place of http://.\n"
    b"What you have sent was not encrypted. If there was a key in it, make a new one.\n"
)
_NOT_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b"
) % (len(_NOT_TLS_TEXT), _NOT_TLS_TEXT)


class Arrival:
    """A connection whose handshake is not done."""

    __slots__ = ("address", "began", "since", "socket", "task", "wanted")

    def __init__(self, connection: socket.socket, address: str, since: float) -> None:
        self.socket = connection
        self.address = address
        self.since = since
        self.wanted = 0
        """How many bytes the kernel was asked to wait for; 0: any."""
        self.began = 0.0
        """When the handshake began."""
        self.task: asyncio.Task[None] | None = None


class Arrivals:
    """Accepts connections on a listener and makes fronts of them.

    uvicorn's server keeps it as one of its own `asyncio.Server`s, and asks for `close` and `wait_closed`.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        backlog: int,
        doorman: Doorman,
        make_front: Callable[[], Front],
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        self.failed = 0
        """Handshakes that came to nothing, since the start."""
        self._listener = listener
        self._doorman = doorman
        self._make_front = make_front
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[Arrival, None] = OrderedDict()
        """For their first message, the oldest first."""
        self._ready: deque[Arrival] = deque()
        """For a place to make their handshake in."""
        self._in_handshake: OrderedDict[Arrival, None] = OrderedDict()
        self._lingering: set[Arrival] = set()
        """Who were told that this is no way to talk to us, and may read it."""
        self._sweeper: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(backlog)
        self._listen()
        self._sweep()

    def __len__(self) -> int:
        """How many are between accept and front."""
        return len(self._waiting) + len(self._ready) + len(self._in_handshake)

    def close(self) -> None:
        """Accept nobody any more, and drop those who are not through."""
        if self._sweeper is None:
            return
        self._sweeper.cancel()
        self._sweeper = None
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for arrival in [*self._waiting, *self._ready]:
            self._drop(arrival)
        self._ready.clear()
        for arrival in [*self._lingering]:
            self._stop_lingering(arrival)
        for arrival in self._in_handshake:
            if arrival.task is not None:
                arrival.task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the handshakes under way have ended."""
        tasks = [arrival.task for arrival in self._in_handshake if arrival.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- accept

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory: what waits in the kernel may wait there
                log.error("connections cannot be accepted now: %s", error.strerror or error)  # noqa: TRY400  the cause is outside
                self._loop.remove_reader(self._listener)
                self._loop.call_later(ACCEPT_PAUSE_S, self._listen_again)
                return
            connection.setblocking(False)
            if not self._doorman.take_share(peer[0]):
                connection.close()
                continue
            self._wait_for_hello(Arrival(connection, peer[0], self._loop.time()))

    def _listen_again(self) -> None:
        if self._sweeper is not None:
            self._listen()

    def _wait_for_hello(self, arrival: Arrival) -> None:
        if len(self._waiting) >= self._share(MOST_WAITING, LEAST_SHARE):
            self._drop(next(iter(self._waiting)))
        self._waiting[arrival] = None
        self._loop.add_reader(arrival.socket, self._look, arrival)

    def _share(self, most: int, of: int) -> int:
        connections = self._doorman.bounds.connections
        return min(most, max(1, connections // of)) if connections else most

    def _look(self, arrival: Arrival) -> None:
        """There is something to read: the whole first message, a part of it, the end, or no TLS at all."""
        try:
            data = arrival.socket.recv(_LARGEST_RECORD, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(arrival)
            return
        if not data or len(data) < arrival.wanted:  # woken without what was asked for: the end
            self._drop(arrival)
        elif data[0] != _HANDSHAKE_RECORD:
            self._refuse(arrival, data)
        else:
            size = _RECORD_HEAD
            if len(data) >= size:
                size = min(size + int.from_bytes(data[3:5]), _LARGEST_RECORD)
            if len(data) >= size:
                self._is_complete(arrival)
            else:
                arrival.wanted = size
                arrival.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _is_complete(self, arrival: Arrival) -> None:
        self._loop.remove_reader(arrival.socket)
        del self._waiting[arrival]
        if arrival.wanted:
            arrival.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._ready.append(arrival)
        self._fill_places()

    # -- no TLS

    def _refuse(self, arrival: Arrival, data: bytes) -> None:
        """Tell who speaks plain HTTP, which begins with a method in capitals, so; and close."""
        is_http = b"A" <= data[:1] <= b"Z"
        if not is_http or self._doorman.lingering >= MOST_LINGERING:
            self._drop(arrival)
            return
        self.failed += 1
        self._loop.remove_reader(arrival.socket)
        del self._waiting[arrival]
        self._doorman.lingering += 1
        self._lingering.add(arrival)
        self._loop.call_later(LINGER_S, self._stop_lingering, arrival)
        with contextlib.suppress(OSError):
            arrival.socket.send(_NOT_TLS)
            arrival.socket.shutdown(socket.SHUT_WR)
            # Closing with unread input would make the kernel take the answer back (RFC 9112, section 9.6).
            self._loop.add_reader(arrival.socket, self._read_into_void, arrival)

    def _read_into_void(self, arrival: Arrival) -> None:
        with contextlib.suppress(OSError):
            if arrival.socket.recv(65536):
                return
        self._loop.remove_reader(arrival.socket)

    def _stop_lingering(self, arrival: Arrival) -> None:
        if arrival in self._lingering:
            self._lingering.discard(arrival)
            self._doorman.lingering -= 1
            self._loop.remove_reader(arrival.socket)
            self._close(arrival)

    # -- handshakes

    def _fill_places(self) -> None:
        most = self._share(MOST_HANDSHAKES, 2 * LEAST_SHARE)
        while self._ready and len(self._in_handshake) < most:
            arrival = self._ready.popleft()
            self._in_handshake[arrival] = None
            arrival.began = self._loop.time()
            arrival.task = self._loop.create_task(self._shake_hands(arrival), name="TLS handshake")

    async def _shake_hands(self, arrival: Arrival) -> None:
        front = self._make_front()
        front.has_share = True
        left = HEAD_TIMEOUT_S - (self._loop.time() - arrival.since)
        try:
            await self._loop.connect_accepted_socket(
                lambda: front,
                arrival.socket,
                ssl=self._context(),
                ssl_handshake_timeout=max(0.1, left),
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:  # what TLS has to complain of (ssl.SSLError), a reset, the time-out
            log.debug("no TLS handshake with %s: %s", arrival.address, error)
        finally:
            del self._in_handshake[arrival]
            # The front has the share from then on, and gives it back when its connection is gone.
            if not front.peer_address:  # it was not told of a connection
                self.failed += 1
                self._doorman.give_share_back(arrival.address)
            if self._sweeper is not None:
                self._fill_places()

    # -- the clock

    def _sweep(self) -> None:
        now = self._loop.time()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        late = [arrival for arrival in self._waiting if now - arrival.since > HEAD_TIMEOUT_S]
        for arrival in late:
            self._drop(arrival)
        while self._ready and now - self._ready[0].since > HEAD_TIMEOUT_S:
            self._give_up(self._ready.popleft())
        slow = [arrival for arrival in self._in_handshake if now - arrival.began > HURRY_S]
        for arrival, _ in zip(slow, self._ready, strict=False):
            if arrival.task is not None:
                arrival.task.cancel()

    def _drop(self, arrival: Arrival) -> None:
        self._loop.remove_reader(arrival.socket)
        self._waiting.pop(arrival, None)
        self._give_up(arrival)

    def _give_up(self, arrival: Arrival) -> None:
        self.failed += 1
        self._close(arrival)

    def _close(self, arrival: Arrival) -> None:
        arrival.socket.close()
        self._doorman.give_share_back(arrival.address)
