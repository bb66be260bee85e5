"""Many callers at once, on bare sockets."""

import asyncio
import itertools
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


@dataclass
class Received:
    """Request ids of the answers that arrived completely, by status."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    begun: int = 0


async def call_until_killed(
    port: int, key: str, *, callers: int, make_body: Callable[[int], dict]
) -> Received:
    """Call without pause until the server is gone."""
    received = Received()
    numbers = itertools.count()

    async def caller() -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                received.begun += 1
                writer.write(post_bytes("/v1/chat/completions", make_body(next(numbers)), key=key))
                status, request_id = await _read_any(reader)
                (received.answered if status == 200 else received.refused).append(request_id)
        except (OSError, asyncio.IncompleteReadError):
            pass  # killed: what was under way does not count as received
        finally:
            if writer is not None:
                writer.transport.abort()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return received


async def _read_any(reader: asyncio.StreamReader) -> tuple[int, str]:
    status, request_id, length = await _read_head(reader)
    if length >= 0:
        note_error(status, {}, await reader.readexactly(length))
    else:
        await _read_stream(reader)
    return status, request_id


async def _read_stream(reader: asyncio.StreamReader) -> None:
    """A chunked stream to its very end; it counts as received only when [DONE] came."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
        body = body[-200:]
    await reader.readexactly(2)
    if not body.endswith(b"data: [DONE]\n\n"):
        raise asyncio.IncompleteReadError(body, None)
