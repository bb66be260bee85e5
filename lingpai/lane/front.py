"""The front: uvicorn's httptools protocol with a fast lane for model calls.

A request whose path `Calls.open` claims becomes a `Call` and is driven by callbacks; every other request is plain
ASGI on the same connection, exactly as uvicorn does it.

One request at a time: a request that arrives on a connection before the call in front of it is answered is not
served; the connection closes after that answer. RFC 9112, section 9.3.2 lets a server do so and tells clients not to
pipeline after a POST; and nothing can then mix up two answers.

A caller who does not read is not read from, so that answers nobody takes cannot fill the memory.
"""

import asyncio
from typing import Any, ClassVar, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100
HEAD_TIMEOUT_S: Final = 10.0
"""How long the head of a request may take, however busily it is being sent."""
BODY_TIMEOUT_S: Final = 30.0
"""How long a request may stand still in the middle of its body."""
WRITE_TIMEOUT_S: Final = 60.0
"""How long a caller may read nothing of what waits for them."""
LINGER_S: Final = 2.0
MAX_PIPELINED: Final = 16
"""How many requests for the ASGI application may wait behind the one that is being answered."""

Headers = list[tuple[bytes, bytes]]


class Call(Protocol):
    """One model call, told what happens on the caller's side. No method may raise."""

    def body_part(self, data: bytes) -> None:
        """A piece of the request body."""

    def body_complete(self) -> None:
        """The request is complete."""

    def caller_left(self) -> None:
        """The connection is gone; nothing can be answered any more."""

    def pause(self) -> None:
        """The caller reads slower than we write: stop the source."""

    def resume(self) -> None:
        """The caller has caught up."""

    def stop(self) -> None:
        """The server ends and cannot wait any longer: say so to the caller and finish."""


class Calls(Protocol):
    """Decides which requests are model calls."""

    def claims(self, url: bytes) -> bool:
        """Whether a POST to `url` is a model call."""

    def open(self, front: "Front", url: bytes, headers: Headers, fields: dict[bytes, bytes]) -> Call | None:
        """The call that this POST begins, or None when the request is for the ASGI application.

        `fields` holds the same headers by lower-case name; of a repeated one, the last.
        """

    def malformed(self, status: int, message: str) -> bytes:
        """A whole HTTP response, to be followed by a close, for a request that is not proper HTTP."""


class Front(HttpToolsProtocol):
    """One connection of a caller."""

    calls: ClassVar[Calls]
    is_local: ClassVar[bool] = False
    """Whether the connection came over the administration socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.call: Call | None = None
        self.has_been_active = True
        self.idle_since = 0.0
        self.caller_address = ""
        """The peer's IP address; empty on the administration socket."""
        self._deaf = False
        self._is_last = False
        self._in_head = False
        self._is_incomplete = False
        self._head_since = 0.0
        self._head_bytes = 0
        """Bytes of an incomplete request that were no part of its body: what a caller can make us keep for nothing."""
        self._piece_bytes = 0
        self._has_read_body = False
        self._unsent_bytes = 0
        self._stuck_since = 0.0

    # -- what the transport tells us

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.caller_address = self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._piece_bytes = len(data)
        self.has_been_active = True
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("This is not an HTTP request.")
            return
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        if self._is_incomplete:
            self._head_bytes = 0 if self._has_read_body else self._head_bytes + len(data)
            self._has_read_body = False
            if self._head_bytes > MAX_HEAD_BYTES:
                what = "header block is" if self._in_head else "trailers or chunk extensions are"
                self._refuse_head(431, f"The {what} over {MAX_HEAD_BYTES} bytes. Send less.")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        call, self.call = self.call, None
        if call is not None:
            call.caller_left()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()
        if self.call is not None:
            self.call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self.flow.resume_reading()
        if self.call is not None:
            self.call.resume()

    # -- what the parser tells us

    def on_message_begin(self) -> None:
        if self.call is not None:
            self._deaf = True
        elif self.flow.write_paused or len(self.pipeline) >= MAX_PIPELINED:
            self._stop_serving()  # one read may hold thousands of requests: pausing alone does not stop those
        self.url = b""
        if self._deaf:
            return
        self.headers = []
        self.expect_100_continue = False
        self._in_head = self._is_incomplete = True
        self._head_since = 0.0
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers come here too, and must not become headers after the fact
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._in_head = False
        headers = self.headers
        fields = dict(headers)
        if (
            b"host" not in fields
            or len(fields) != len(headers)
            or len(headers) > MAX_HEADERS
            or self._head_bytes
            or self._piece_bytes > MAX_HEAD_BYTES
        ):
            problem = self._problem_with_head()
            if problem:
                self._refuse_head(*problem)
                return
        if b"expect" in fields:
            self.expect_100_continue = fields[b"expect"].lower() == b"100-continue"
        if b"upgrade" in fields and self.parser.should_upgrade():
            return  # the parser stops here, and `_ignore_upgrade` goes on
        method = self.parser.get_method()
        is_post = method == b"POST"
        if (
            is_post
            and self.cycle is not None
            and not self.cycle.response_complete
            and self.calls.claims(self.url)
        ):
            self._stop_serving()  # an ASGI answer is still under way: see the module's docstring
            return
        if is_post:
            call = self.calls.open(self, self.url, headers, fields)
            if call is not None:
                if not self._deaf:
                    self._begin(call)
                return
        if method == b"CONNECT":  # the parser takes what follows for a tunnel: no request would ever end
            self._refuse_head(400, "CONNECT is for proxies. This is none.")
            return
        # uvicorn builds its scope when a message begins; only now is it known that one is needed.
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers = self.scope["headers"] = headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_read_body = True
        if self._deaf:
            return  # the body of a request that is not served
        if self.call is not None:
            self.call.body_part(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_incomplete = False
        if self._deaf or self.parser.should_upgrade():
            return
        if self.call is not None:
            self.call.body_complete()
        else:
            super().on_message_complete()

    # -- what a call may do

    def write(self, data: bytes) -> None:
        """Send bytes to the caller. After the connection is lost this does nothing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def finish(self, *, keep_alive: bool) -> None:
        """The call is answered. The connection waits for the next request or closes."""
        self.call = None
        self.has_been_active = True
        self.server_state.total_requests += 1
        if self._deaf or self._is_last or not keep_alive:
            self.transport.close()

    def finish_and_linger(self) -> None:
        """The call is answered before its body was read: close, but in a way that lets the caller read the answer.

        Closing with unread input makes the kernel send a reset, which can destroy the answer on its way
        (RFC 9112, section 9.6). So: half-close, discard what still comes, close soon.
        """
        self.call = None
        self._deaf = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def is_http_1_0(self) -> bool:
        return bool(self.parser.get_http_version() == "1.0")

    # -- uvicorn's server asks for these

    def shutdown(self) -> None:
        """Stop after the current request."""
        if self.call is not None:
            self._is_last = True
        else:
            super().shutdown()

    def watch(self, now: float, idle_s: float) -> None:
        """Close the connection when its time is up: see the time-outs above. `now` is loop time; call it often."""
        if self.has_been_active:
            self.has_been_active = False
            self.idle_since = now
        is_busy = self.call is not None or (self.cycle is not None and not self.cycle.response_complete)
        if self._in_head:
            self._head_since = self._head_since or now
            is_late = now - self._head_since > HEAD_TIMEOUT_S
        elif self._is_incomplete:
            is_late = now - self.idle_since > BODY_TIMEOUT_S
        else:
            is_late = not is_busy and now - self.idle_since > idle_s
        if is_late:
            self.transport.close()
        self._watch_writing(now)

    def send_400_response(self, msg: str) -> None:
        self._refuse_head(400, f"{msg} Send HTTP/1.1 as RFC 9112 describes it.")

    # -- helpers

    def _watch_writing(self, now: float) -> None:
        """Drop a caller who has stopped reading: neither an answer nor an orderly close would ever get through."""
        before, self._unsent_bytes = self._unsent_bytes, 0
        if self.flow.write_paused or self.transport.is_closing():
            self._unsent_bytes = self.transport.get_write_buffer_size()
        if not before or self._unsent_bytes < before:
            self._stuck_since = now
        elif now - self._stuck_since > WRITE_TIMEOUT_S:
            self.transport.abort()

    def _stop_serving(self) -> None:
        """Serve no further request: close once the answers that are under way have been sent."""
        if self._deaf:
            return
        self._deaf = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # the last in line; uvicorn closes behind it
        else:
            self.finish_and_linger()

    def _begin(self, call: Call) -> None:
        self.call = call
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on as if no upgrade had been asked for (RFC 9110, section 7.8 lets a server do that).

        The parser has stopped behind the head, whatever Content-Length says: Java's client, for one, asks for h2c with
        a body. So a new parser gets the same head without the wish, and then the rest.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n" % (method, self.url, version)
        if not self.parser.should_keep_alive():
            head += b"connection: close\r\n"
        kept = [
            item for item in self.headers if item[0] not in (b"upgrade", b"connection", b"http2-settings")
        ]
        head += b"".join(b"%b: %b\r\n" % item for item in kept)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + b"\r\n" + rest)

    def _problem_with_head(self) -> tuple[int, str] | None:
        headers = self.headers
        if len(headers) > MAX_HEADERS:
            return 431, f"More than {MAX_HEADERS} headers. Send fewer."
        if self._head_bytes + self._piece_bytes > MAX_HEAD_BYTES:
            size = sum(len(name) + len(value) + 4 for name, value in headers) + len(self.url)
            if size > MAX_HEAD_BYTES:
                return 431, f"The header block is over {MAX_HEAD_BYTES} bytes. Send fewer or shorter headers."
        hosts = 0
        for name, _ in headers:
            if name == b"host":
                hosts += 1
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            return 400, "A request needs exactly one Host header (RFC 9112, section 3.2)."
        return None

    def _refuse_head(self, status: int, message: str) -> None:
        if self.transport.is_closing() or self._deaf:
            return
        self.transport.write(self.calls.malformed(status, message))
        self._in_head = False
        self.finish_and_linger()


def front_protocol(calls: Calls, *, is_local: bool = False) -> type[Front]:
    """A protocol class for uvicorn whose connections hand model calls to `calls`."""
    return type("BoundFront", (Front,), {"calls": calls, "is_local": is_local})


async def watch_fronts(connections: set[asyncio.Protocol], *, idle_s: float, every_s: float = 2.5) -> None:
    """Close connections whose time is up, for ever (a task; cancel it to stop)."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, Front):
                connection.watch(now, idle_s)
