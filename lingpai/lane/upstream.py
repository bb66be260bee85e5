"""One connection to a backend: what is sent, what comes back, and when to give up.

A request is one run of bytes, already framed. Its answer is told to a `Receiver` piece by piece, on the event loop.
"""

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

import httptools

from lingpai.lane.known_head import KnownHead

if TYPE_CHECKING:
    from lingpai.lane.upstream_pool import UpstreamPool

QUIET_S: Final = 15.0
"""How long an answer is silent before its receiver is told, so that it can show signs of life."""

MAX_OVERHEAD_BYTES: Final = 256 * 1024
"""How much may come in a row that is no part of a body: heads, interim answers, chunk extensions, trailers."""

KEPT_HEADERS: Final = frozenset({
    b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after",
    b"x-lingpai-dropped-params",
})  # fmt: skip


class Failure(Enum):
    """Why there was no answer, or not all of it."""

    CONNECT = "could not be reached"
    CONNECT_TIMEOUT = "did not accept the connection in time"
    TIMEOUT = "did not answer in time"
    IDLE = "fell silent in the middle of its answer"
    CLOSED = "closed the connection before its answer was complete"
    GARBAGE = "answered with something that is not HTTP"


class Receiver(Protocol):
    """Who gets an answer. The lane calls `started` at most once, then `data`, then exactly one of `finished` and `failed`;
    `quiet` at any time before those. What these raise is told to `broken`, and is the end, too.
    """

    upstream: "Upstream | None"
    """The connection the answer comes from; set when it is known, cleared when it is over."""
    retries: int
    """Counted up when a dead pooled connection made a second attempt necessary."""
    is_over: bool
    """Whether nobody waits for the answer any more."""

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The head is here: status and those of `KEPT_HEADERS` that were sent, names in lower case."""

    def response_data(self, data: bytes) -> None:
        """A piece of the body."""

    def response_quiet(self) -> None:
        """Nothing has come for another `QUIET_S` seconds of an answer that has begun."""

    def response_finished(self) -> None:
        """The answer is complete."""

    def response_failed(self, failure: Failure, detail: str) -> None:
        """There will be no (more) answer."""

    def response_broken(self, error: BaseException | None) -> None:
        """A fault of ours: log it and answer whoever waits. May not raise."""


class Upstream(asyncio.Protocol):
    """One connection to a backend: idle in its pool, or busy with one receiver.

    Time-outs cost nothing here: whatever happens sets `has_progressed`, and the pool's sweep, which runs twice a
    second, moves the deadline of those that have and ends those that have not.
    """

    __slots__ = (
        "_has_read_body", "_headers", "_is_paused", "_is_retryable", "_is_spoiled", "_known_head", "_known_headers",
        "_known_status", "_overhead_bytes", "_parser", "_quiet_at", "_request", "_status", "deadline", "has_answered",
        "has_progressed", "pool", "receiver", "transport",
    )  # fmt: skip

    def __init__(self, pool: "UpstreamPool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.receiver: Receiver | None = None
        self.deadline = 0.0
        self._quiet_at = 0.0
        self.has_answered = False
        self.has_progressed = True
        self._request = b""
        self._is_retryable = False
        self._is_spoiled = False
        self._is_paused = False
        self._has_read_body = False
        self._overhead_bytes = 0
        self._parser: Any = httptools.HttpResponseParser(self)
        self._known_head = KnownHead()
        self._known_status = 0
        self._known_headers: dict[bytes, bytes] = {}
        self._status = 0
        self._headers: dict[bytes, bytes] = {}

    def send(self, request: bytes, receiver: Receiver, *, is_retryable: bool) -> None:
        """Begin an exchange on this idle connection."""
        self.receiver = receiver
        receiver.upstream = self
        self._request = request if is_retryable else b""  # it may be large, and the answer may take minutes
        self._is_retryable = is_retryable
        self.has_answered = False
        self.has_progressed = True
        self._overhead_bytes = 0
        self.transport.write(request)

    def abort(self) -> None:
        """Drop the exchange and the connection with it: the backend sees the close and can stop working."""
        self._release()
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading: the caller is slower than the backend."""
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused:
            self._is_paused = False
            self.has_progressed = True  # the silence in between was ours
            self.transport.resume_reading()

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.pool.open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self._is_spoiled = True  # unasked-for bytes: whatever comes next could be taken for an answer
            self.transport.abort()
            return
        is_first = not self.has_answered
        self.has_answered = self.has_progressed = True
        if is_first and (body := self._known_head.body_of(data)):
            self._take_known(receiver, body)
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserCallbackError):  # raised by one of our own methods
                self._break(receiver, error.__context__)
            else:
                self._fail(Failure.GARBAGE, str(error))
            self.transport.abort()
            return
        if self.receiver is None:
            if is_first:
                self._learn(data)
            self._rest()
        elif self._has_read_body:
            self._has_read_body = False
            self._overhead_bytes = 0
        else:
            self._count_overhead(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.forget(self)
        self._parser = None  # it knows us: without this, only the garbage collector could free the two
        if self.receiver is None:
            return
        if self._status and not self._is_framed() and exc is None:
            # RFC 9112, section 6.3, rule 8: no length was given, so the close ends the answer.
            receiver = self.receiver
            try:
                self._finish(may_keep_alive=False)
            except Exception as error:  # noqa: BLE001  as the parser catches what is raised elsewhere
                self._break(receiver, error)
        elif self._is_retryable and not self.has_answered and self.has_progressed:
            # Sent since the last sweep, so the connection was dead already; later, the backend may have done the work.
            request, receiver = self._request, self.receiver
            self._release()
            self.pool.retry(request, receiver)
        else:
            self._fail(Failure.CLOSED, str(exc) if exc else "connection closed")

    # -- parser

    def on_message_begin(self) -> None:
        self._status = 0
        self._headers = {}
        if self.receiver is None:
            self._is_spoiled = True  # a second answer behind the first

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in KEPT_HEADERS and not self._status:  # trailers come here too, and change nothing any more
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # An interim answer (RFC 9110, section 15.2) is not the answer; that one follows.
        if status >= 200 and self.receiver is not None:
            self._status = status
            if b"content-encoding" in self._headers and status < 300 and self._is_encoded():
                self._fail(Failure.GARBAGE, "compressed, which was not asked for")
                self.transport.abort()
                return
            self.receiver.response_started(status, self._headers)

    def on_body(self, data: bytes) -> None:
        self._has_read_body = True
        if self.receiver is not None:
            self.receiver.response_data(data)

    def on_message_complete(self) -> None:
        if self._status:
            self._finish(may_keep_alive=self._parser.should_keep_alive())

    # -- whole answers with a known head

    def _take_known(self, receiver: Receiver, body: bytes) -> None:
        """Tell of a whole answer what the parser would."""
        length = b"%d" % len(body)
        if self._known_headers[b"content-length"] != length:
            self._known_headers = {**self._known_headers, b"content-length": length}
        self._status, self._headers = self._known_status, self._known_headers
        try:
            receiver.response_started(self._status, self._headers)
            if self.receiver is not None:
                receiver.response_data(body)
            self._finish(may_keep_alive=True)
        except Exception as error:  # noqa: BLE001  as the parser catches what is raised elsewhere
            self._break(receiver, error)
            self.transport.abort()
        self._rest()

    def _learn(self, answer: bytes) -> None:
        """Know the head of an answer again that has come as a whole and left the connection as it was."""
        status = self._parser.get_status_code()
        if (
            not self.transport.is_closing()
            and status not in (204, 304)
            and b"transfer-encoding" not in self._headers
            and answer.startswith(b"HTTP/1.1 %d " % status)
            and self._known_head.learn(answer)
        ):
            self._known_status, self._known_headers = status, self._headers

    # -- ends

    def _finish(self, *, may_keep_alive: bool) -> None:
        receiver = self.receiver
        if receiver is None:
            return
        if not (may_keep_alive and self._is_framed()):
            self.transport.close()
        self._status = 0
        self.receiver = receiver.upstream = None
        self._request = b""
        receiver.response_finished()

    def _rest(self) -> None:
        """After an answer, back to the pool: all bytes have been looked at, and nothing may stand behind it."""
        if self.receiver is not None or self.transport.is_closing():
            return
        if self._is_spoiled:
            self.transport.abort()
        else:
            if self._is_paused:
                self.resume()
            self.pool.give_back(self)

    def _fail(self, failure: Failure, detail: str) -> None:
        receiver = self.receiver
        if receiver is not None:
            self._release()
            tell_failure(receiver, failure, detail)

    def _break(self, receiver: Receiver, error: BaseException | None) -> None:
        self._release()
        receiver.response_broken(error)

    def _release(self) -> None:
        if self.receiver is not None:
            self.receiver.upstream = None
            self.receiver = None
        self._request = b""

    def _count_overhead(self, size: int) -> None:
        self._overhead_bytes += size
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            self._fail(Failure.GARBAGE, f"over {MAX_OVERHEAD_BYTES} bytes of headers, trailers or framing")
            self.transport.abort()

    def _is_encoded(self) -> bool:
        return self._headers[b"content-encoding"].strip().lower() not in (b"", b"identity")

    def _is_framed(self) -> bool:
        return b"content-length" in self._headers or b"transfer-encoding" in self._headers

    def check_deadline(self, now: float) -> None:
        """Move the deadline when something has happened since the last check; else see whether it has passed."""
        if self.has_progressed:
            self.has_progressed = False
            self._is_retryable = False  # see `connection_lost`
            self._request = b""
            self.deadline = now + self._patience()
            self._quiet_at = now + QUIET_S
        elif self._is_paused:
            return
        elif now > self.deadline:
            self._time_out()
        elif now >= self._quiet_at and self.has_answered and self.receiver is not None:
            self._quiet_at = now + QUIET_S
            receiver = self.receiver
            try:
                receiver.response_quiet()
            except Exception as error:  # noqa: BLE001  as in `connection_lost`
                self._break(receiver, error)
                self.transport.abort()

    def _time_out(self) -> None:
        if self.receiver is None:
            self.transport.close()
        else:
            self._fail(Failure.IDLE if self.has_answered else Failure.TIMEOUT, "time-out")
            self.transport.abort()

    def _patience(self) -> float:
        timeouts = self.pool.timeouts
        if self.receiver is None:
            return timeouts.keep_alive
        return timeouts.idle if self.has_answered else timeouts.first_byte


def tell_failure(receiver: Receiver, failure: Failure, detail: str) -> None:
    try:
        receiver.response_failed(failure, detail)
    except Exception as error:  # noqa: BLE001  an outermost edge, like the one in `connection_lost`
        receiver.response_broken(error)
