"""Many callers at once, on bare sockets."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.raw_http import chat, note_error, post_bytes


async def call_many(port: int, key: str, *, calls: int, callers: int) -> list[int]:
    """Make `calls` chat calls over `callers` connections; the statuses."""
    request = post_bytes("/v1/chat/completions", chat(), key=key)
    numbers = iter(range(calls))
    statuses: list[int] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in numbers:
                writer.write(request)
                status, _, _ = await read_unary(reader)
                statuses.append(status)
        finally:
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return statuses


async def read_unary(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Status, request id and body of an answer with a length. Raises IncompleteReadError when it is cut off."""
    status, request_id, length = await _read_head(reader)
    body = await reader.readexactly(length)
    note_error(status, {}, body)
    return status, request_id, body


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, str, int]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.split("\r\n")
    headers = dict(each.split(": ", 1) for each in lines if each)
    return int(line.split(" ")[1]), headers["x-request-id"], int(headers.get("content-length", -1))


# -- callers who keep book

_PAUSE_S = 0.005  # after a refusal, or little else would be called but what is refused


@dataclass(frozen=True)
class Planned:
    """A call to be made: its bytes, whether it must have a record, and after how many seconds its caller leaves."""

    request: bytes
    kind: str
    is_recordable: bool = True
    leaves_after_s: float | None = None


@dataclass(slots=True)
class Sent:
    """A call as its caller saw it. `address` is the caller's, and no other connection of the test has it.

    `request_id` and `status` are known once the head of the answer is there, `end` when all of it is.
    """

    address: str
    kind: str
    is_recordable: bool
    request_id: str = ""
    status: int = 0
    code: str = ""
    end: bytes | None = None

    @property
    def is_answered(self) -> bool:
        return self.end is not None


@dataclass
class Crowd:
    """Callers who call until the server is gone or `is_closing`, and note every call before it is sent.

    Each connection comes from an address of its own, `127.net.x.y`, which the usage records repeat: so it can be told of
    a record whose answer nobody has received whether its call was ever made.
    """

    port: int
    plan: Callable[[random.Random], Planned]
    net: int
    seed: int
    sent: list[Sent] = field(default_factory=list)
    is_closing: bool = False

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    async def run(self, callers: int) -> list[Sent]:
        """All calls that were made."""
        await asyncio.gather(*(self._caller(number) for number in range(callers)))
        return self.sent

    async def _caller(self, number: int) -> None:
        dice = random.Random(self.seed * 1000 + number)
        while not self.is_closing:
            address = self._next_address()
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=(address, 0)
                )
            except OSError:
                return  # the server is gone
            try:
                while not self.is_closing and await self._call(dice, address, reader, writer):
                    pass
            except (OSError, asyncio.IncompleteReadError):
                pass  # killed, or it closes after an answer: the next connection tells
            finally:
                writer.transport.abort()

    def _next_address(self) -> str:
        number = next(self._numbers)
        return f"127.{self.net}.{number // 250}.{number % 250 + 1}"

    async def _call(
        self,
        dice: random.Random,
        address: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Make one call; whether the connection can have another."""
        planned = self.plan(dice)
        sent = Sent(address, planned.kind, planned.is_recordable)
        self.sent.append(sent)
        writer.write(planned.request)
        if planned.leaves_after_s is None:
            await _read_answer(reader, sent)
            if sent.status >= 400:
                await asyncio.sleep(_PAUSE_S)
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_read_answer(reader, sent), planned.leaves_after_s)
        return False


async def _read_answer(reader: asyncio.StreamReader, sent: Sent) -> None:
    sent.status, sent.request_id, length = await _read_head(reader)
    if length >= 0:
        body = await reader.readexactly(length)
        note_error(sent.status, {}, body)
        sent.code = _code_in(body) if sent.status >= 400 else ""
        sent.end = body[-200:]
    else:
        sent.end = await _read_stream(reader)


def _code_in(body: bytes) -> str:
    return body.partition(b'"code":"')[2].partition(b'"')[0].decode()


async def _read_stream(reader: asyncio.StreamReader) -> bytes:
    """The end of a chunked stream. Raises IncompleteReadError when it breaks off."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body = (body + (await reader.readexactly(size + 2))[:-2])[-400:]
    await reader.readexactly(2)
    return body
