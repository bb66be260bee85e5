"""The end of a stream whose caller has left just before it: the usage that the backend is about to report.

Otherwise whoever left between the last word and the usage would pay by our estimate, which may be less than they used.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from lingpai.wire import sse

log = logging.getLogger("lingpai.gateway")

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange
    from lingpai.gateway.stream import Stream
    from lingpai.lane.upstream import Failure, Upstream

PATIENCE_S: Final = 2.0
"""How long the usage is waited for."""


class Then(Protocol):
    """What comes after the usage, or instead of it."""

    def __call__(self, *, is_stopping: bool) -> None:
        """`is_stopping`: the server ends, and nothing more can be waited for."""


def is_due(exchange: "Exchange") -> bool:
    """Whether the backend has said all but what was used."""
    stream = exchange.stream
    return (
        exchange.is_admitted
        and exchange.upstream is not None
        and stream is not None
        and stream.reported is None
        and stream.has_said_all
    )


def begin(exchange: "Exchange", then: Then) -> None:
    """Take the stream over from the caller, and go on with `then` when the usage has come, or will not."""
    gateway, stream, upstream = exchange.gateway, exchange.stream, exchange.upstream
    assert stream is not None  # noqa: S101  `is_due` has looked, for the reader of types
    assert upstream is not None  # noqa: S101  the same
    exchange.upstream = None
    listener = Listener(stream, upstream)
    gateway.counting.add(exchange)
    gateway.jobs.start("hear a stream out", _hear_out(exchange, listener, then))


async def _hear_out(exchange: "Exchange", listener: "Listener", then: Then) -> None:
    is_stopping = False
    try:
        async with asyncio.timeout(PATIENCE_S):
            await listener.ended.wait()
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        is_stopping = True  # the record must be written all the same
    finally:
        listener.close()
        exchange.gateway.counting.discard(exchange)
        exchange.carry_on(partial(then, is_stopping=is_stopping))


class Listener:
    """Receives the rest of a stream and sends it nowhere (lane.upstream.Receiver)."""

    def __init__(self, stream: "Stream", upstream: "Upstream") -> None:
        self.upstream: Upstream | None = upstream
        self.retries = 0
        self.is_over = False
        self.ended = asyncio.Event()
        self._stream = stream
        upstream.receiver = self
        upstream.resume()  # the caller may have been too slow for it

    def close(self) -> None:
        """Listen no longer; the backend stops working for nobody."""
        self.is_over = True
        if self.upstream is not None:
            self.upstream.abort()

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """A stream has begun long since."""

    def response_data(self, data: bytes) -> None:
        """Look for the usage."""
        try:
            self._stream.reader.read(self._stream.cutter.feed(data))
        except sse.EventTooLongError:
            self.ended.set()
        if self._stream.reported is not None or self._stream.reader.done:
            self.ended.set()

    def response_quiet(self) -> None:
        """Nobody is there who would have to be told."""

    def response_finished(self) -> None:
        """It has not come."""
        self.ended.set()

    def response_broken(self, error: BaseException | None) -> None:
        """It will not come, through a fault of ours."""
        log.error("the end of a stream could not be read", exc_info=error)
        self.ended.set()

    def response_failed(self, failure: "Failure", detail: str) -> None:  # noqa: ARG002  nobody is there to be told
        """It will not come."""
        self.ended.set()
