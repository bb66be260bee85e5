"""A server whose every connection follows a script, on the test's own event loop, for what no real backend does on command."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path


class ScriptedConnection:
    """The server's side of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.requests: list[bytes] = []
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """One request, head and body, as it came. Raises IncompleteReadError when the other side closes instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        request = head + await self._reader.readexactly(length)
        self.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the other side does not read."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> None:
        """A whole answer with its length, in one piece."""
        lines = b"".join(header + b"\r\n" for header in headers)
        await self.send(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), lines, body))

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close as a crashed program does."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        self._writer.transport.abort()


Script = Callable[[ScriptedConnection], Awaitable[None]]


class ScriptedServer:
    """What has connected so far, and where to connect."""

    def __init__(self, script: Script) -> None:
        self.connections: list[ScriptedConnection] = []
        self.port = 0
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> list[bytes]:
        """All requests on all connections."""
        return [request for connection in self.connections for request in connection.requests]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = ScriptedConnection(len(self.connections), reader, writer)
        self.connections.append(connection)
        try:
            await self._script(connection)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side has closed, or the test is over
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def scripted_server(
    script: Script, *, socket_path: Path | None = None
) -> AsyncIterator[ScriptedServer]:
    """Serve on a free port of the loopback address, or on a Unix socket; every connection runs `script`."""
    scripted = ScriptedServer(script)
    if socket_path is not None:
        server = await asyncio.start_unix_server(scripted.accept, str(socket_path))
    else:
        server = await asyncio.start_server(scripted.accept, "127.0.0.1", 0)
        scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
        await scripted.stop()
        await asyncio.sleep(0)
