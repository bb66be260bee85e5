"""A whole server in this process, in front of the fuzzing backend, and the checks after each round.

Everything is real: sockets, parser, keys, limits, journal, ingester. It runs here, and not in a process of its own, so
that no exception, log line or connection left behind can escape notice.
"""

import asyncio
import dataclasses
import logging
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lingpai.app import Application
from lingpai.gateway.settings import GatewaySettings
from lingpai.identity.schemas import KeyCreate
from lingpai.settings import ModelSettings, ServerSettings, Settings
from tests.fuzz.requests import Connection
from tests.fuzz.upstream import CANARY, Upstream

CALLERS: Final = 4
LIMITS: Final = (
    ("1000000/day", "100000000 tokens/day", "64 concurrent"),
    ("1000000/day", "1000000000 tokens/1h", "1000 USD/month"),
    ("2 concurrent wait 1s", "900 USD/1h"),
    ("100/1s wait 1s", "5000 tokens/minute"),
)
"""Of each caller: every unit, and some that make calls wait or refuse them."""
_ANSWER_S: Final = 5.0
"""Far above the time-outs of the server under test: an answer that takes longer is a hang."""


class FuzzError(AssertionError):
    """Something that must never happen has happened; the message says what."""


class _Sink(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self.lines.append(line)
        if record.exc_info or record.levelno >= logging.CRITICAL:
            self.faults.append(line)


class Stage:
    """The server, its callers' keys, and what happens around them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sink = _Sink()
        self._loop_faults: list[str] = []
        self.upstream = Upstream()
        self.keys: list[str] = []
        self.rounds = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._loop_faults.append(repr(context)))
        logging.getLogger().addHandler(self._sink)
        await self.upstream.start()
        gateway = GatewaySettings(
            first_byte_timeout_s=0.2, idle_timeout_s=0.2, max_body_bytes=20_000, max_answer_bytes=20_000
        )
        settings = Settings(server=ServerSettings(port=0), gateway=gateway)
        self._application = Application(settings, data=self._folder / "data", environment={})
        target = ModelSettings(
            target=f"http://127.0.0.1:{self.upstream.port}/v1",
            name="fuzz",
            task="chat",
            price={"input": "2", "output": "8"},
        )
        started = await self._application.start((target,))
        self.port = int(started.address.rpartition(":")[2])
        self._running = asyncio.create_task(self._application.run())
        for number in range(CALLERS):
            body = KeyCreate(name=f"caller-{number}", limits=list(LIMITS[number]))
            made = await asyncio.to_thread(
                self._application.domains.keys.create, self._application.local_administrator, body
            )
            self.keys.append(made.token)

    async def stop(self) -> None:
        self._application.request_stop()
        await self._running
        await self._application.stop()
        await self.upstream.stop()
        logging.getLogger().removeHandler(self._sink)

    async def play(self, connections: Sequence[Connection], recipes: Sequence[tuple[bytes, str]]) -> None:
        """One round: all connections at once, then the checks. Raises FuzzError."""
        self.rounds += 1
        self._forget_faults()  # of a round before, or no smaller round than that could pass when hypothesis shrinks it
        self.upstream.recipes = list(recipes)
        received = await asyncio.gather(*(self._caller(connection) for connection in connections))
        await self._wait_for_quiet()
        for connection, data in zip(connections, received, strict=True):
            _check_received(connection, data)
        self._check_log()

    async def _caller(self, connection: Connection) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        try:
            for piece in connection.pieces:
                if not writer.transport.is_closing():
                    writer.write(piece)
                await asyncio.sleep(0)
            return await self._end(connection, reader, writer)
        except (ConnectionError, BrokenPipeError):
            return b""  # the server had enough of it, which is its right
        finally:
            writer.transport.abort()

    async def _end(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        if connection.ending == "leave-early":
            return b""
        if connection.ending == "reset":
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        if connection.ending == "half-close" and not writer.transport.is_closing():
            writer.write_eof()
        if not connection.must_be_answered:
            return await _read_some(reader, 0.05)
        try:
            async with asyncio.timeout(_ANSWER_S):
                first = await reader.read(1 << 20)
        except TimeoutError:
            raise FuzzError(f"no answer within {_ANSWER_S:g} s to {connection}") from None
        if not first:
            raise FuzzError(f"closed without an answer to {connection}")
        return first + await _read_some(reader, 0.02)

    async def _wait_for_quiet(self) -> None:
        """All callers have left: no call, no busy upstream connection and no reservation may stay behind."""
        for _ in range(int(_ANSWER_S / 0.02)):
            left = self._left_behind()
            if not left:
                return
            await asyncio.sleep(0.02)
        raise FuzzError(f"left behind after a round: {left}")

    def _left_behind(self) -> list[str]:
        application = self._application
        calls = [f"call {front.call}" for front in application.server.fronts if front.call is not None]
        links = application.gateway._links.values()
        busy = [
            f"upstream for {upstream.receiver}"
            for link in links
            for upstream in link.pool.open_connections
            if upstream.receiver is not None
        ]
        held = [
            f"{meter.limit} of {meter.label}: {meter.reserved} reserved"
            for principal in application.domains.keyring.principals()
            for meter in _meters(principal)
            if meter.reserved
        ]
        return calls + busy + held

    def _forget_faults(self) -> None:
        self._loop_faults, self._sink.faults, self._sink.lines = [], [], []

    def _check_log(self) -> None:
        faults, lines = self._sink.faults + self._loop_faults, self._sink.lines
        if faults:
            raise FuzzError("an exception escaped:\n" + "\n".join(faults[:3]))
        text = "\n".join(lines)
        if CANARY.search(text.encode()):
            raise FuzzError(f"a prompt is in the log: {text[:2000]}")
        if any(key in text for key in self.keys):
            raise FuzzError("a key is in the log")


def _meters(principal: Any) -> tuple[Any, ...]:
    account = principal.account
    return () if account is None else tuple(account.meters)


def _check_received(connection: Connection, data: bytes) -> None:
    foreign = {found[0] for found in CANARY.finditer(data)} - {connection.canary.encode()}
    if foreign:
        raise FuzzError(f"{connection.canary} got bytes of {sorted(foreign)}")
    if data and not data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise FuzzError(f"not an HTTP answer: {data[:200]!r}")
    if b'"internal_error"' in data or data.startswith((b"HTTP/1.1 500 Internal", b"HTTP/1.0 500")):
        raise FuzzError(f"an internal error: {data[:1000]!r} after {dataclasses.asdict(connection)}")


async def _read_some(reader: asyncio.StreamReader, quiet_s: float) -> bytes:
    """What comes until nothing has come for `quiet_s`."""
    data = b""
    try:
        while True:
            async with asyncio.timeout(quiet_s):
                piece = await reader.read(1 << 20)
            if not piece:
                return data
            data += piece
    except TimeoutError:
        return data
