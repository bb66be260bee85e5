"""The front: uvicorn's httptools protocol with a fast lane for model calls.

A request whose path `Calls.open` claims becomes a `Call` and is driven by callbacks; every other request is plain
ASGI on the same connection, exactly as uvicorn does it.

One request at a time: a request that arrives on a connection before the call in front of it is answered is not
served; the connection closes after that answer. RFC 9112, section 9.3.2 lets a server do so and tells clients not to
pipeline after a POST; and nothing can then mix up two answers.

A caller who does not read is not read from, so that answers nobody takes cannot fill the memory. The same brake holds
for one who keeps sending what is worth nothing (`slow_down`).

A caller who sends FIN has left, even if they could still read: a proxy or program that gives up looks the same, and the
backend must not work for nobody.
"""

import asyncio
import logging
from functools import partial
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lingpai.lane.calls import Call, Calls, Headers
from lingpai.lane.doorman import MOST_LINGERING, Bounds, Doorman
from lingpai.lane.heads import MAX_HEAD_BYTES, MAX_HEADERS, has_path, problem_with_head, without_upgrade
from lingpai.lane.kernel import unacknowledged_bytes
from lingpai.lane.known_head import KnownHead

log = logging.getLogger("lingpai.lane")

HEAD_TIMEOUT_S: Final = 10.0
"""How long the head of a request may take, however busily it is being sent."""
BODY_TIMEOUT_S: Final = 30.0
MIN_BODY_BYTES: Final = 15_000
"""Each stretch of `BODY_TIMEOUT_S` must bring so much of a body (500 bytes a second), or its end."""
WRITE_TIMEOUT_S: Final = 60.0
MIN_READ_BYTES: Final = 30_000
"""Each stretch of `WRITE_TIMEOUT_S` a caller must take so much of what waits for them, or all of it."""
LINGER_S: Final = 2.0
OFFENCES_PER_S: Final = 10.0
FREE_OFFENCES: Final = 20
"""How many worthless requests a connection may send at once, and per second ever after."""
OFFENCE_PAUSE_S: Final = 0.1
LONG_OFFENCE_PAUSE_S: Final = 0.5
"""How long an offender is not listened to; the longer one when the address is known for it, and for nothing else."""
MAX_APP_BODY_BYTES: Final = 1024 * 1024
"""The largest body for the application, which keeps it in memory before it knows who sends it."""
MAX_PIPELINED: Final = 16
"""How many requests for the ASGI application may wait behind the one that is being answered."""

_UNUSUAL: Final = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
_APP_BODY_TOO_LARGE: Final = (413, f"The body is over {MAX_APP_BODY_BYTES} bytes. Send less.")


class Front(HttpToolsProtocol):
    """One connection of a caller."""

    calls: ClassVar[Calls]
    doorman: ClassVar[Doorman] = Doorman(Bounds())
    is_local: ClassVar[bool] = False
    """Whether the connection came over the administration socket."""
    certificate_names: tuple[str, ...] = ()
    """The names in the client's certificate, where one was asked for, shown and verified."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.call: Call | None = None
        self._called: dict[bytes, bytes] = {}
        """The headers of the call that has just begun."""
        self.memo: Any = None
        """What those who answer calls remember of the last head: it is there for a call only if that has the same one."""
        self._known_head = KnownHead()
        self._known_headers: Headers = []
        self._known_fields: dict[bytes, bytes] = {}
        """Of the last request, if its head is known."""
        self.has_been_active = True
        self.idle_since = 0.0
        self.peer_address = self.caller_address = ""
        """Who holds the connection and who sent the request that is being served, by IP address: the same but behind a
        declared proxy. Empty on the administration socket."""
        self.has_share = False
        """Whether the doorman has counted the connection when it came (`lane/arrivals.py`)."""
        self._is_admitted = False
        self._is_held = False
        """Whether the caller must take answers, or wait, before another request is served."""
        self._offences_free_at = 0.0
        self._offences = self._finished = 0
        self._deaf = False
        self._is_last = False
        self._in_head = False
        self._is_incomplete = False
        self._head_since = 0.0
        self._body_since = 0.0
        self._body_bytes = 0
        self._app_body_bytes = 0
        self._head_bytes = 0
        """Bytes of an incomplete request that were no part of its body: what a caller can make us keep for nothing."""
        self._piece_bytes = 0
        self._has_read_body = False
        self.unsent_bytes = 0
        """How much a caller who does not read leaves in our memory."""
        self._untaken_bytes = 0
        """The same and what is in the kernel's, at most since `_stuck_since`; 0 when nothing waits."""
        self._stuck_since = 0.0

    # -- what the transport tells us

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.peer_address = self.caller_address = self.client[0] if self.client else ""
        connections: Any = self.connections
        refusal = self.doorman.admit(self, connections, len(connections), self.loop.time())
        if refusal is None:
            self._is_admitted = True
        else:
            self._turn_away(*refusal)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._piece_bytes = len(data)
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        is_first = not (self._is_incomplete or self.call is not None or self._is_held or self.pipeline)
        if is_first and self._known_fields and self._is_taken_as_known(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._break_off(error.__context__)
            return
        except httptools.HttpParserError:
            self.send_400_response("This is not an HTTP request.")
            return
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        if is_first:
            self._learn(data)
        if self._is_incomplete:
            self._body_bytes += len(data)
            self._head_bytes = 0 if self._has_read_body else self._head_bytes + len(data)
            self._has_read_body = False
            if self._head_bytes > MAX_HEAD_BYTES:
                what = "header block is" if self._in_head else "trailers or chunk extensions are"
                self._refuse_head(431, f"The {what} over {MAX_HEAD_BYTES} bytes. Send less.")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._is_admitted:
            self.doorman.leave(self)
        call, self.call = self.call, None
        if call is not None:
            call.caller_left()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._is_held = True
        self.flow.pause_reading()
        if self.call is not None:
            self.call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_held = False
        self._untaken_bytes = 0  # much was taken; what is written from now on has time of its own
        if not self.transport.is_closing():
            self.flow.resume_reading()
        if self.call is not None:
            self.call.resume()

    # -- what the parser tells us

    def on_message_begin(self) -> None:
        if self.call is not None:
            self._deaf = True
        elif self._is_held or len(self.pipeline) >= MAX_PIPELINED:
            self._stop_serving()  # one read may hold thousands of requests: pausing alone does not stop those
        self.url = b""
        if self._deaf:
            return
        # What the parser and uvicorn hold is of this request from now on.
        self._called = self._known_fields = {}
        self.memo = None
        # Not for any data: blank lines before a request are skipped, and mean nothing.
        self.has_been_active = True
        self.headers = []
        self.expect_100_continue = False
        self._in_head = self._is_incomplete = True
        self._head_since = self._body_since = 0.0
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
            problem = problem_with_head(
                self.url,
                headers,
                version=self.parser.get_http_version(),
                received=self._head_bytes + self._piece_bytes,
            )
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
                self._called = fields
                if not self._deaf:
                    self._begin(call)
                return
        self._open_for_application(method, fields)

    def on_body(self, body: bytes) -> None:
        self._has_read_body = True
        if self._deaf:
            return  # the body of a request that is not served
        if self.call is not None:
            self.call.body_part(body)
        else:
            self._app_body_bytes += len(body)
            if self._app_body_bytes > MAX_APP_BODY_BYTES:  # sent without a length
                self._drop_app_request()
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

    # -- whole calls with a known head

    def _is_taken_as_known(self, data: bytes) -> bool:
        """Whether `data` is one more call like the last one, and so was told of as the parser would."""
        body = self._known_head.body_of(data)
        is_application_busy = self.cycle is not None and not self.cycle.response_complete
        if not body or is_application_busy:
            return False
        self.has_been_active = True
        headers, fields = self._known_headers, self._known_fields
        length = b"%d" % len(body)
        if fields[b"content-length"] != length:
            headers = [(name, length if name == b"content-length" else value) for name, value in headers]
            fields = {**fields, b"content-length": length}
        try:
            call = self.calls.open(self, self.url, headers, fields)
            if call is not None and not self._deaf:
                self.call = call
                call.body_part(body)
                call.body_complete()
        except Exception as error:  # noqa: BLE001  as the parser catches what is raised elsewhere
            self._break_off(error)
            return True
        return call is not None or self._deaf

    def _learn(self, data: bytes) -> None:
        """Know the head of a call again that has come as a whole, if nothing in it wants a closer look."""
        fields, self._called = self._called, {}
        if (
            fields
            and not self._deaf
            and _UNUSUAL.isdisjoint(fields)
            and len(fields) == len(self.headers)
            and self.parser.get_http_version() == "1.1"
            and self._known_head.learn(data)
        ):
            self._known_headers, self._known_fields = self.headers, fields

    # -- what a call may do

    def write(self, data: bytes) -> None:
        """Send bytes to the caller. After the connection is lost this does nothing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def finish(self, *, keep_alive: bool) -> None:
        """The call is answered. The connection waits for the next request or closes."""
        self.call = None
        self.has_been_active = True
        self._finished += 1
        self.server_state.total_requests += 1
        if self._deaf:
            self.finish_and_linger()  # more has come behind the call, or still comes
        elif self._is_last or not keep_alive:
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

    def slow_down(self) -> None:
        """The caller has sent something that is worth nothing, such as a key that is none.

        Whoever does so again and again is listened to less often, which costs us nothing: what they send waits in
        their kernel. Others are not touched, nor a proxy, which carries the good calls of others, too.
        """
        self._offences += 1
        is_shared = self.doorman.is_shared(self.peer_address)
        if self._finished >= self._offences and is_shared:
            return
        now = self.loop.time()
        is_forgiven = self.doorman.forgives(self.caller_address, now)
        free_at = max(self._offences_free_at, now)
        if is_forgiven and (free_at - now) * OFFENCES_PER_S < FREE_OFFENCES - 0.5:
            self._offences_free_at = free_at + 1 / OFFENCES_PER_S
        elif not self._is_held and not self.transport.is_closing():
            self._is_held = True
            self.flow.pause_reading()
            is_short = is_forgiven or is_shared
            self.loop.call_later(OFFENCE_PAUSE_S if is_short else LONG_OFFENCE_PAUSE_S, self._listen_again)

    def is_http_1_0(self) -> bool:
        return bool(self.parser.get_http_version() == "1.0")

    # -- uvicorn's server asks for these

    def shutdown(self) -> None:
        """Stop after the current request."""
        if self.call is not None:
            self._is_last = True
        else:
            super().shutdown()

    def has_unfinished_answer(self) -> bool:
        """Whether something of an answer is still to come, or to be sent."""
        is_sending = self.transport is not None and self.transport.get_write_buffer_size() > 0
        return self.call is not None or is_sending

    # -- the doorman asks for these

    def idle_time(self) -> float | None:
        """Since when the connection is idle, in loop time; None when closing it would end somebody's work."""
        is_busy = self._is_busy() or (self._is_incomplete and not self._in_head)
        if is_busy or self.is_local or self.transport.is_closing():
            return None
        if self._in_head:
            return self._head_since or self.loop.time()
        return self.loop.time() if self.has_been_active else self.idle_since

    def close_idle(self) -> None:
        """Make room for others."""
        self.transport.close()

    # -- the clock

    def watch(self, now: float, idle_s: float) -> None:
        """Close the connection when its time is up: see the time-outs above. `now` is loop time; call it often."""
        if self.has_been_active:
            self.has_been_active = False
            self.idle_since = now
        if self._in_head:
            self._head_since = self._head_since or now
            is_late = now - self._head_since > HEAD_TIMEOUT_S
        elif self._is_incomplete:
            is_late = self._is_body_late(now)
        else:
            is_late = now - self.idle_since > idle_s and not self._is_busy()
        if is_late:
            self.transport.close()
        self._watch_writing(now)

    def send_400_response(self, msg: str) -> None:
        self._refuse_head(400, f"{msg} Send HTTP/1.1 as RFC 9112 describes it.")

    # -- helpers

    def _is_busy(self) -> bool:
        return self.call is not None or (self.cycle is not None and not self.cycle.response_complete)

    def _is_body_late(self, now: float) -> bool:
        """Whether a body stands still, or comes a byte now and then to keep us waiting."""
        if not self._body_since or self._body_bytes >= MIN_BODY_BYTES or self.flow.read_paused:
            self._body_since, self._body_bytes = now, 0
            return False
        return now - self._body_since > BODY_TIMEOUT_S

    def _watch_writing(self, now: float) -> None:
        """Drop a caller who does not read, or hardly: neither an answer nor an orderly close would ever get through."""
        self.unsent_bytes = self._unsent()
        before, untaken = self._untaken_bytes, self._untaken()
        if not untaken or not before or before - untaken >= MIN_READ_BYTES:
            self._untaken_bytes, self._stuck_since = untaken, now
            return
        self._untaken_bytes = max(before, untaken)
        if now - self._stuck_since > WRITE_TIMEOUT_S:
            self.transport.abort()

    def _unsent(self) -> int:
        is_waiting = self.flow.write_paused or self.transport.is_closing()
        return self.transport.get_write_buffer_size() if is_waiting else 0

    def _untaken(self) -> int:
        """What waits here and in the kernel, which takes megabytes at once and then, for long, nothing."""
        return self.unsent_bytes and self.unsent_bytes + unacknowledged_bytes(self.transport)

    def _listen_again(self) -> None:
        self._is_held = self.flow.write_paused
        if not self._is_held and not self.transport.is_closing():
            self.flow.resume_reading()

    def _drop_app_request(self) -> None:
        """Refuse the request that the application is reading, unless there is an answer on its way."""
        if self._has_taken_back():
            self._refuse_head(*_APP_BODY_TOO_LARGE)
        else:
            self.transport.abort()

    def _has_taken_back(self) -> bool:
        """Tell the application that its caller has left, if no answer is on its way: then this is false, and does nothing."""
        cycle = self.cycle
        if self.pipeline or cycle.response_started:
            return False
        cycle.disconnected = cycle.response_complete = True
        cycle.message_event.set()
        return True

    def _turn_away(self, status: int, message: str) -> None:
        doorman = self.doorman
        if doorman.lingering >= MOST_LINGERING:
            self.transport.abort()
            return
        doorman.lingering += 1
        self.loop.call_later(LINGER_S, self._stop_lingering)
        self._refuse_head(status, message)

    def _stop_lingering(self) -> None:
        self.doorman.lingering -= 1

    def _open_for_application(self, method: bytes, fields: dict[bytes, bytes]) -> None:
        if method == b"CONNECT":  # the parser takes what follows for a tunnel: no request would ever end
            self._refuse_head(400, "CONNECT is for proxies. This is none.")
            return
        if not has_path(self.url):
            self._refuse_head(400, "The request target has no path, or one that is none.")
            return
        if int(fields.get(b"content-length", 0)) > MAX_APP_BODY_BYTES:
            self._refuse_head(*_APP_BODY_TOO_LARGE)
            return
        self._app_body_bytes = 0
        # uvicorn builds its scope when a message begins; only now is it known that one is needed.
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue, self.headers = url, expect, headers
        self.scope["headers"] = headers
        super().on_headers_complete()
        self.cycle.on_response = partial(self._app_answered, self.scope["state"])

    def _app_answered(self, state: dict[str, Any]) -> None:
        """The application has answered. ``state["is_offence"]`` is its way to ask for `slow_down`.

        `state` is that of the request which was answered; others may wait in line behind it.
        """
        is_unread = self._is_incomplete and not self._in_head and not self.pipeline
        self.on_response_complete()
        self.has_been_active = True
        if self._is_held and not self.transport.is_closing():
            self.flow.pause_reading()  # uvicorn reads on after each answer
        if state.get("is_offence"):
            self.slow_down()
            if is_unread and not self.transport.is_closing():
                self.finish_and_linger()

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
        parser = self.parser
        head = without_upgrade(
            parser.get_method(),
            self.url,
            self.headers,
            version=parser.get_http_version(),
            keep_alive=parser.should_keep_alive(),
        )
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _break_off(self, error: BaseException | None) -> None:
        """Something was raised in one of our own methods: a fault of ours, not the caller's."""
        if self.call is not None:
            self._deaf = True  # nobody knows how much of the request there is still to come
            self.call.break_off(error)
            return
        log.error("a request from %s could not be handled", self.caller_address, exc_info=error)
        self._refuse_head(
            500, "Something went wrong inside Lingpai. The operator finds the cause in the log."
        )

    def _refuse_head(self, status: int, message: str) -> None:
        if self.transport.is_closing() or self._deaf:
            return
        if self.call is not None:
            self.call.caller_left()  # what it has heard of until now was no request
        cycle = self.cycle
        is_being_answered = cycle is not None and not cycle.response_complete
        # The application would wait for the rest of a body that is none; but no answer may overtake another one.
        if is_being_answered and not (cycle.more_body and self._has_taken_back()):
            self._stop_serving()
            return
        self.transport.write(self.calls.malformed(status, message))
        self._in_head = False
        self.finish_and_linger()
