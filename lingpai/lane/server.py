"""Listening: uvicorn's server with our front on a TCP port, and the same application on a Unix socket.

uvicorn starts, ticks and drains. Signals are for the caller of `run` to handle: uvicorn would raise them again after
its own shutdown, and end the process before the journal is closed.
"""

import asyncio
import os
import socket
from typing import Any, Final

import uvicorn
from uvicorn._types import ASGI3Application

from lingpai.lane.front import Calls, Front, front_protocol, watch_fronts

BACKLOG: Final = 4096


class LaneServer:
    """One process's listeners."""

    def __init__(
        self, app: ASGI3Application, calls: Calls, *, keep_alive_s: float, stop_timeout_s: float
    ) -> None:
        self._app = app
        self._calls = calls
        self._keep_alive_s = keep_alive_s
        self._server = uvicorn.Server(self._config(front_protocol(calls), stop_timeout_s))
        self._local_server: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def fronts(self) -> list[Front]:
        """The callers' connections, those of the administration socket included."""
        connections = self._server.server_state.connections
        return [connection for connection in connections if isinstance(connection, Front)]

    async def start(self, listener: socket.socket, admin_socket: str) -> None:
        """Accept callers on `listener` (bound already) and on `admin_socket`, a path that only this user can open."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[listener])
        await self._listen_locally(admin_socket)
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
                front.call.stop()
        await asyncio.sleep(0.05)  # the last events are on their way

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
        config = self._config(front_protocol(self._calls, is_local=True), 1)
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
