"""A whole server in this process, in front of the fuzzing backend, and the checks after each round.

Nothing may escape notice: no exception, no log line, nothing that is left behind.
"""

import asyncio
import collections
import dataclasses
import gc
import logging
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lingpai.gateway.settings import GatewaySettings
from lingpai.settings import ModelSettings, ServerSettings, Settings
from tests.fuzz.calls import TASKS, Connection
from tests.fuzz.upstream import CANARY, Upstream
from tests.in_process import InProcessServer

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
        self.seen: collections.Counter[str] = collections.Counter()
        """What the rounds have brought about: a fuzzer that is refused everything finds nothing."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._loop_faults.append(repr(context)))
        logging.getLogger().addHandler(self._sink)
        await self.upstream.start()
        gateway = GatewaySettings(
            first_byte_timeout_s=0.2, idle_timeout_s=0.2, max_body_bytes=20_000, max_answer_bytes=20_000
        )
        settings = Settings(server=ServerSettings(port=0), gateway=gateway)
        price = {"input": "2", "output": "8"}
        targets = [
            ModelSettings(
                target=f"http://127.0.0.1:{self.upstream.port}/{task}/v1", name=task, task=task, price=price
            )
            for task in TASKS
        ]
        self._server = InProcessServer(self._folder, settings, targets)
        await self._server.start()
        for number in range(CALLERS):
            self.keys.append(await self._server.make_key(f"caller-{number}", LIMITS[number]))

    async def stop(self) -> None:
        """Raises FuzzError for what came to light only at the end."""
        await self._server.stop()
        await self.upstream.stop()
        gc.collect()  # exceptions of tasks that nobody waited for are told of now
        await asyncio.sleep(0)
        logging.getLogger().removeHandler(self._sink)
        self._check_log()

    async def play(self, connections: Sequence[Connection], recipes: Sequence[tuple[bytes, str]]) -> None:
        """One round: all connections at once, then the checks. Raises FuzzError."""
        self.rounds += 1
        self._check_log()  # what came after the round before
        self.upstream.recipes = list(recipes)
        received = await asyncio.gather(*(self._caller(connection) for connection in connections))
        await self._wait_for_quiet()
        for connection, data in zip(connections, received, strict=True):
            _check_received(connection, data)
            self.seen.update(_what_came(connection, data))
        self.seen["upstream"] = self.upstream.answered
        self._check_log()

    async def _caller(self, connection: Connection) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port, limit=1 << 24)
        try:
            for piece in connection.pieces:
                if not writer.transport.is_closing():
                    writer.write(piece)
                await asyncio.sleep(0)
            return await self._end(connection, reader, writer)
        except ConnectionError as error:
            if connection.must_be_answered:
                raise FuzzError(f"no answer, but {error!r} to {connection}") from None
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
        left = await self._server.wait_until_free(_ANSWER_S)
        if left:
            raise FuzzError(f"left behind after a round: {left}")

    def _check_log(self) -> None:
        """What was logged or raised since the last look, which is forgotten then: a smaller round may pass."""
        faults, lines = self._sink.faults + self._loop_faults, self._sink.lines
        self._loop_faults, self._sink.faults, self._sink.lines = [], [], []
        if faults:
            raise FuzzError("an exception escaped:\n" + "\n".join(faults[:3]))
        text = "\n".join(lines)
        if CANARY.search(text.encode()):
            raise FuzzError(f"a prompt is in the log: {text[:2000]}")
        if any(key in text for key in self.keys):
            raise FuzzError("a key is in the log")


def _check_received(connection: Connection, data: bytes) -> None:
    foreign = {found[0] for found in CANARY.finditer(data)} - {connection.canary.encode()}
    if foreign:
        raise FuzzError(f"{connection.canary} got bytes of {sorted(foreign)}")
    if data and not data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise FuzzError(f"not an HTTP answer: {data[:200]!r}")
    if b'"internal_error"' in data or data.startswith((b"HTTP/1.1 500 Internal", b"HTTP/1.0 500")):
        raise FuzzError(f"an internal error: {data[:1000]!r} after {dataclasses.asdict(connection)}")


def _what_came(connection: Connection, data: bytes) -> list[str]:
    is_own = connection.canary.encode() in data
    return [
        *(["answered"] if b" 200 OK\r\n" in data and is_own else []),
        *(["streamed"] if b"text/event-stream" in data and is_own else []),
        *(["limited"] if b" 429 " in data else []),
        *(["left early"] if connection.ending in ("leave-early", "reset") else []),
    ]


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
