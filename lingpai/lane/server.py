"""Listening: uvicorn's server with our front on a TCP port, and the same application on a Unix socket.

uvicorn starts, ticks and drains. Signals are for the caller of `run` to handle: uvicorn would raise them again after
its own shutdown, and end the process before the journal is closed.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
from typing import Any, Final

import uvicorn
from uvicorn._types import ASGI3Application

from lingpai.lane.arrivals import Arrivals
from lingpai.lane.calls import Call, Calls
from lingpai.lane.doorman import Bounds, Doorman
from lingpai.lane.forwarded import Proxies
from lingpai.lane.front import Front
from lingpai.lane.fronts import front_protocol, watch_fronts
from lingpai.lane.tls import ServerTls

log = logging.getLogger("lingpai.lane")

BACKLOG: Final = 4096
PEER_TIMEOUT_S: Final = 60
"""How long a caller's machine may acknowledge nothing, or take nothing, before it counts as gone."""
LAST_EVENTS_S: Final = 2.0
"""How long the last events of streams may take on their way, when the server stops."""
SPARE_DESCRIPTORS: Final = 128
"""For the database, the journal, log files, workers and the loop itself."""


class LaneServer:
    """One process's listeners."""

    def __init__(
        self,
        app: ASGI3Application,
        calls: Calls,
        *,
        keep_alive_s: float,
        stop_timeout_s: float,
        bounds: Bounds | None = None,
        proxies: Proxies | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._app = app
        self._calls = calls
        self._keep_alive_s = keep_alive_s
        self._tls = tls
        self.doorman = Doorman(bounds or Bounds(), proxies)
        self.arrivals: Arrivals
        """Those whose TLS handshake is not done; there from the start on, where there is TLS."""
        asks = None if tls is None else tls.files.client_certificates
        protocol = front_protocol(calls, doorman=self.doorman, client_certificates=asks)
        self._server = uvicorn.Server(self._config(protocol, stop_timeout_s))
        self._local_server: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def fronts(self) -> list[Front]:
        """The callers' connections, those of the administration socket included."""
        connections = self._server.server_state.connections
        return [connection for connection in connections if isinstance(connection, Front)]

    async def start(self, listener: socket.socket, admin_socket: str) -> None:
        """Accept callers on `listener` (bound already) and on `admin_socket`, a path that only this user can open.

        With TLS on the listener where there is a certificate; never on the socket.
        """
        config = self._server.config
        config.load()
        _notice_vanished_callers(listener)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[listener] if self._tls is None else [])
        if self._tls is not None:
            self._accept_tls(listener, self._tls)
        await self._listen_locally(admin_socket)
        self._watch()

    def _accept_tls(self, listener: socket.socket, tls: ServerTls) -> None:
        server = self._server
        protocol: Any = server.config.http_protocol_class
        self.arrivals = Arrivals(
            listener,
            backlog=BACKLOG,
            doorman=self.doorman,
            make_front=lambda: protocol(config=server.config, server_state=server.server_state, app_state={}),
            context=lambda: tls.context,
        )
        servers: list[Any] = server.servers
        servers.append(self.arrivals)  # uvicorn closes it with its own

    def reconfigure(self, *, keep_alive_s: float, stop_timeout_s: float, bounds: Bounds) -> None:
        """Change these while running. A bound on calls per address holds only if there was one at the start."""
        self._keep_alive_s = keep_alive_s
        config = self._server.config
        config.timeout_keep_alive = int(keep_alive_s)  # the application's connections; open ones keep theirs
        config.timeout_graceful_shutdown = max(1, round(stop_timeout_s))
        self.doorman.bounds = bounds
        self._watch()

    def _watch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        connections: Any = self._server.server_state.connections
        self._watcher = asyncio.create_task(watch_fronts(connections, idle_s=self._keep_alive_s))

    async def run(self) -> None:
        """Serve until told to stop."""
        await self._server.main_loop()

    def stop(self) -> None:
        """End `run`; asked a second time, without waiting for streams."""
        if self._server.should_exit:
            self._server.force_exit = True
        self._server.should_exit = True

    async def drain(self) -> None:
        """Stop accepting; let calls finish, up to the time-out; end what is left with a last event."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._local_server is not None:
            self._local_server.close()
        await self._server.shutdown()
        for front in self.fronts:
            if front.call is not None:
                _stop(front.call)
        await self._last_events()

    async def _last_events(self) -> None:
        """Wait until what the stopped calls still had to say is on its way."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_EVENTS_S
        await asyncio.sleep(0.05)
        while any(front.has_unfinished_answer() for front in self.fronts) and loop.time() < deadline:
            await asyncio.sleep(0.02)

    def _config(self, protocol: type[Front], stop_timeout_s: float) -> uvicorn.Config:
        return uvicorn.Config(
            self._app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(self._keep_alive_s),
            timeout_graceful_shutdown=max(1, round(stop_timeout_s)),
            proxy_headers=False,  # a caller must not choose the address that rules are checked against
            server_header=False,
        )

    async def _listen_locally(self, address: str) -> None:
        config = self._config(front_protocol(self._calls, doorman=self.doorman, is_local=True), 1)
        config.load()
        protocol: Any = config.http_protocol_class
        before = os.umask(0o177)  # never open to others, not even for a moment
        try:
            self._local_server = await asyncio.get_running_loop().create_unix_server(
                lambda: protocol(
                    config=config, server_state=self._server.server_state, app_state={"is_local": True}
                ),
                address,
            )
        finally:
            os.umask(before)


def _stop(call: Call) -> None:
    try:
        call.stop()
    except Exception:  # an outermost edge: the others still wait for their last events
        log.exception("a call could not be stopped in an orderly way")


def most_connections(wanted: int, descriptors: int) -> int:
    """How many callers' connections to allow: `wanted` (0: any number), or what a limit of `descriptors` leaves.

    A third of the descriptors is kept for connections to backends.
    """
    possible = max(1, (descriptors - SPARE_DESCRIPTORS) * 2 // 3)
    return min(wanted, possible) if wanted else possible


def raise_descriptor_limit() -> int:
    """Take as many file descriptors as this process may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems promise more than they give
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def _notice_vanished_callers(listener: socket.socket) -> None:
    """Set on the listener, inherited by its connections: one system call for all (tcp(7))."""
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", PEER_TIMEOUT_S),
            ("TCP_KEEPINTVL", 15),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", PEER_TIMEOUT_S * 1000),
        ):
            if hasattr(socket, option):  # not on every system
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
