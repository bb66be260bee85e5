"""All fronts of a process: their class, bound to what they need, and the clock that looks after them."""

import asyncio
from typing import Any, Final

from lingpai.lane.calls import Calls
from lingpai.lane.doorman import Bounds, Doorman
from lingpai.lane.front import Front
from lingpai.lane.proxied_front import ProxiedFront
from lingpai.lane.tls import ClientCertificates
from lingpai.lane.tls_front import TlsFront

MAX_UNSENT_BYTES: Final = 512 * 1024 * 1024
"""How much may wait to be sent on all connections together before those who hold most of it are dropped."""
LOOKS_AT_ONCE: Final = 500


class CountingFront(Front):
    """A front that holds its caller's address to a number of calls at a time. Only used where that is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_counted = False

    def _learn(self, data: bytes) -> None:  # noqa: ARG002  the form of `Front`
        """Know no head: each is to be counted."""
        self._called = {}

    def on_headers_complete(self) -> None:
        if self.call is None and not self._deaf and self.calls.claims(self.url):
            self._is_counted = self.doorman.begin_call(self.caller_address)
            if not self._is_counted:
                most = self.doorman.bounds.calls_per_address
                self._refuse_head(429, f"Your address has {most} calls under way, which is its share. Wait.")
                return
        super().on_headers_complete()
        if self.call is None and self._is_counted:
            self._uncount()

    def finish(self, *, keep_alive: bool) -> None:
        super().finish(keep_alive=keep_alive)
        self._uncount()

    def finish_and_linger(self) -> None:
        super().finish_and_linger()
        self._uncount()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._uncount()

    def _uncount(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self.doorman.end_call(self.caller_address)


def front_protocol(
    calls: Calls,
    *,
    doorman: Doorman | None = None,
    is_local: bool = False,
    client_certificates: ClientCertificates | None = None,
) -> type[Front]:
    """A protocol class for uvicorn whose connections hand model calls to `calls`, past `doorman`.

    `client_certificates` says what is asked of those over TLS; None: the connections are in clear text.
    """
    doorman = doorman or Doorman(Bounds())
    bases: list[type[Front]] = []
    if doorman.proxies and not is_local:
        bases.append(ProxiedFront)  # before the one that counts for the caller it finds
    if doorman.bounds.calls_per_address and not is_local:
        bases.append(CountingFront)
    bound: dict[str, Any] = {"calls": calls, "doorman": doorman, "is_local": is_local}
    if client_certificates is not None:
        bases.append(TlsFront)
        bound["requires_certificate"] = client_certificates == "required"
    return type("BoundFront", tuple(bases) or (Front,), bound)


async def watch_fronts(connections: set[asyncio.Protocol], *, idle_s: float, every_s: float = 2.5) -> None:
    """Close connections whose time is up, for ever (a task; cancel it to stop)."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        now = loop.time()
        fronts = [connection for connection in connections if isinstance(connection, Front)]
        for number, front in enumerate(fronts):
            if number % LOOKS_AT_ONCE == LOOKS_AT_ONCE - 1:
                await asyncio.sleep(0)  # others shall not wait for ten thousand looks
            front.watch(now, idle_s)
        free_memory(fronts)


def free_memory(fronts: list[Front]) -> None:
    """Drop those who leave most unread, when all of it together is too much."""
    waiting = [front for front in fronts if front.unsent_bytes]
    unsent = sum(front.unsent_bytes for front in waiting)
    waiting.sort(key=lambda front: front.unsent_bytes)
    while unsent > MAX_UNSENT_BYTES and waiting:
        front = waiting.pop()
        unsent -= front.unsent_bytes
        front.transport.abort()
