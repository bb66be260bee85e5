"""The lane's tests run on uvloop, as the server does: its transports differ from asyncio's at the edges."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from front_harness import App, Calls, Lane

from lingpai.lane import front as front_module
from lingpai.lane.server import LaneServer
from lingpai.socket_paths import socket_address


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end, within a bound."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(5):
                return await work

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(bounded())

    return run


@pytest.fixture
def lane(tmp_path):
    @contextlib.asynccontextmanager
    async def lane(*, admin_socket=None, keep_alive_s=600.0, bounds=None, **more):
        calls, app = Calls(), App()
        server = LaneServer(app, calls, keep_alive_s=keep_alive_s, stop_timeout_s=1, bounds=bounds, **more)
        listener = socket.create_server(("127.0.0.1", 0))
        path = admin_socket or tmp_path / "admin.sock"
        running = Lane(server, calls, app, listener.getsockname()[1], path)
        await server.start(listener, socket_address(path))
        try:
            yield running
        finally:
            app.go_on.set()
            running.close_callers()
            with contextlib.suppress(TimeoutError):  # nobody is left to wait for
                async with asyncio.timeout(0.02):
                    await server.drain()
            listener.close()

    return lane


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch):
    monkeypatch.setattr(front_module, "LINGER_S", 0.3)
