"""The connections to one backend: pooled, kept alive, watched for silence.

An idle connection that turns out to be dead before the first byte of the answer gets one retry on a fresh one
(RFC 9110, section 9.2.2 leaves this to the client's knowledge of what is safe: nothing of an answer has been seen, and
the connection was lost so soon after sending that nobody can have been at work on it).
"""

import asyncio
import contextlib
import ssl
from collections import deque
from dataclasses import dataclass
from functools import partial

from lingpai.lane.upstream import Failure, Receiver, Upstream, tell_failure


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go: a TCP address (with or without TLS), or a Unix socket when `socket_path` is set."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    socket_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, until the head of the answer, and between two pieces of it; idle life in the pool.

    All but the first are watched by the sweep, and so are up to a second longer.
    """

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 300.0
    keep_alive: float = 60.0


class UpstreamPool:
    """The connections to one backend.

    `may_retry` says whether a request may be sent again when a pooled connection turns out to be dead.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts | None = None,
        max_idle: int = 512,
        may_retry: bool = True,
    ) -> None:
        self.origin = origin
        self.loop = loop
        self.timeouts = timeouts or Timeouts()
        self.max_idle = max_idle
        self.may_retry = may_retry
        self.open_connections: set[Upstream] = set()
        self._idle: deque[Upstream] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._retirements = 0
        self._retired: set[Upstream] = set()
        """Those that are not to be used again when they have nothing more to do."""
        self._is_closed = False

    @property
    def busy(self) -> int:
        """How many exchanges are under way."""
        return len(self.open_connections) - len(self._idle) + len(self._connecting)

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send `request` over an idle connection, or over a new one as soon as it is open."""
        idle = self._idle
        while idle:
            upstream = idle.pop()  # the most recently used: least likely to have been closed meanwhile
            if not upstream.transport.is_closing():
                upstream.send(request, receiver, is_retryable=self.may_retry)
                return
        self._connect(request, receiver)

    def retry(self, request: bytes, receiver: Receiver) -> None:
        """Send `request` again, over a fresh connection: the pooled one was dead."""
        if self._is_closed:
            tell_failure(receiver, Failure.CLOSED, "the connections to this backend are being closed")
            return
        receiver.retries += 1
        self._connect(request, receiver)

    def give_back(self, upstream: Upstream) -> None:
        """Keep an idle connection for the next exchange."""
        if len(self._idle) >= self.max_idle or upstream in self._retired:
            upstream.transport.close()
            return
        upstream.has_progressed = True
        self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """A connection is gone."""
        self.open_connections.discard(upstream)
        self._retired.discard(upstream)
        if upstream.receiver is None:
            with contextlib.suppress(ValueError):
                self._idle.remove(upstream)

    def retire(self) -> None:
        """Send nothing more over the connections of now: another process takes over at the same address.

        The exchanges under way go on; their connections close after them.
        """
        self._retirements += 1
        self._retired |= self.open_connections.difference(self._idle)
        while self._idle:
            self._idle.pop().transport.close()

    def sweep(self) -> None:
        """End exchanges whose time is up and connections idle for too long. Call it every half second."""
        now = self.loop.time()
        for upstream in list(self.open_connections):
            upstream.check_deadline(now)

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self._is_closed = True
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for upstream in list(self.open_connections):
            upstream.transport.abort()

    def _connect(self, request: bytes, receiver: Receiver) -> None:
        task = self.loop.create_task(self._open_and_send(request, receiver))
        self._connecting.add(task)
        task.add_done_callback(partial(self._connected, receiver))

    def _connected(self, receiver: Receiver, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if task.cancelled():
            tell_failure(receiver, Failure.CONNECT, "the connections to this backend are being closed")

    async def _open_and_send(self, request: bytes, receiver: Receiver) -> None:
        retirements = self._retirements
        try:
            async with asyncio.timeout(self.timeouts.connect):
                upstream = await self._open()
        except TimeoutError:
            tell_failure(
                receiver, Failure.CONNECT_TIMEOUT, f"no connection within {self.timeouts.connect:g} s"
            )
        except (OSError, UnicodeError) as error:
            # ssl.SSLError is an OSError; a host name can be no name at all.
            tell_failure(receiver, Failure.CONNECT, str(error))
        else:
            if retirements != self._retirements:
                self._retired.add(upstream)  # it may still have reached the process of before
            if receiver.is_over:
                self.give_back(upstream)  # the caller left while we were connecting
            else:
                upstream.send(request, receiver, is_retryable=False)

    async def _open(self) -> Upstream:
        origin = self.origin
        if origin.socket_path is not None:
            _, upstream = await self.loop.create_unix_connection(lambda: Upstream(self), origin.socket_path)
            return upstream
        hostname = origin.host if origin.tls else None
        _, upstream = await self.loop.create_connection(
            lambda: Upstream(self), origin.host, origin.port, ssl=origin.tls, server_hostname=hostname
        )
        return upstream
