"""Step 5: to the backend and back, unary or as a stream."""

import re
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from lingpai.errors import LingpaiError
from lingpai.gateway import endpoints, media, settle, tally
from lingpai.gateway.bodies import UNCOUNTED_BYTES
from lingpai.gateway.stream import Stream
from lingpai.lane.upstream import Failure
from lingpai.wire import backend_error, sse
from lingpai.wire.chunks import is_plain
from lingpai.wire.usage import MAX_TOKENS, answer_usage

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

_PING = b": ping\n\n"
_FRAMING = (b"content-length", b"transfer-encoding")
# Quotes inside a model's own text are escaped, so this finds fields only.
_MODEL = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')


def send(exchange: "Exchange", path: bytes, body: bytes) -> None:
    """Begin the exchange with the backend."""
    link = exchange.gateway.link(exchange.model.backend)
    if not exchange.sent_type:
        link.send(path, body, exchange, exchange.request_id)
    else:
        link.send_typed(path, body, exchange, exchange.request_id, media_type=exchange.sent_type)
    if exchange.held is not None:
        exchange.let_go_of_body()


def cancel(exchange: "Exchange") -> None:
    """Close the connection to the backend, so that it stops working for nobody."""
    if exchange.upstream is not None:
        exchange.upstream.abort()


# -- the head of the answer


def started(exchange: "Exchange", status: int, headers: dict[bytes, bytes]) -> None:
    """The backend has begun to answer: as a stream of events, or with one body."""
    exchange.status = status
    exchange.first_byte_at = exchange.gateway.loop.time()
    exchange.retry_after = headers.get(b"retry-after")
    dropped = headers.get(b"x-lingpai-dropped-params")
    if dropped:
        exchange.extra_headers += b"x-lingpai-dropped-params: %b\r\n" % dropped
    content_type = headers.get(b"content-type", b"")
    if status < 300 and exchange.endpoint.may_answer_files:
        exchange.answer_type = media.answer_type(content_type)
    elif status < 300 and content_type.startswith(b"text/event-stream"):
        if exchange.request.stream:
            _start_stream(exchange, ends_with_close=headers.keys().isdisjoint(_FRAMING))
        else:
            cancel(exchange)
            _backend_fault(exchange, "backend_error", "answered with a stream that was not asked for")


def _start_stream(exchange: "Exchange", *, ends_with_close: bool) -> None:
    name, upstream_name = exchange.model_name, exchange.model.upstream_name
    stream = Stream(
        wants_usage=exchange.request.wants_usage,
        is_chunked=not exchange.front.is_http_1_0(),
        name=name if name != upstream_name else None,
        ends_with_close=ends_with_close,
        keeps_text=exchange.model.tokenizer is not None,
    )
    head = settle.stream_head(exchange, stream)
    exchange.stream = stream  # from here on, all that is written belongs to a stream
    exchange.front.write(head)


def data(exchange: "Exchange", piece: bytes) -> None:
    """A piece of the answer's body. Of a stream, whole events are handed on; most pass as they came."""
    stream = exchange.stream
    if stream is None:
        _unary_data(exchange, piece)
        return
    if stream.cutter.held or not piece.endswith(b"\n\n"):
        try:
            piece = stream.cutter.feed(piece)
        except sse.EventTooLongError:
            cancel(exchange)
            failed(exchange, Failure.GARBAGE, "an event without an end")
            return
        if not piece:
            return
    if stream.shape.fits(piece):
        stream.events += 1
        stream.sent_bytes += len(piece)
    elif is_plain(piece):
        stream.pass_on(piece)
    else:
        piece = stream.read(piece)
    field = stream.model_field
    if field is not None:
        piece = _MODEL.sub(lambda _: field, piece)
    if piece:
        if stream.kept is not None:
            stream.keep(piece)
        exchange.front.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if stream.is_chunked else piece)


def quiet(exchange: "Exchange") -> None:
    """The backend is silent: a comment in between keeps proxies and clients from giving the stream up."""
    stream = exchange.stream
    if exchange.is_over or stream is None or stream.cutter.held:
        return
    exchange.front.write(b"%x\r\n%b\r\n" % (len(_PING), _PING) if stream.is_chunked else _PING)


def finished(exchange: "Exchange") -> None:
    """The answer is complete."""
    if exchange.is_over:
        return
    if exchange.stream is not None:
        _stream_finished(exchange, exchange.stream)
    else:
        _unary_finished(exchange)


# -- a unary answer


def _unary_data(exchange: "Exchange", piece: bytes) -> None:
    if not exchange.answer:
        exchange.answer = piece  # the usual answer comes in one piece, which is not copied
        if len(piece) <= UNCOUNTED_BYTES:
            return
    else:
        if isinstance(exchange.answer, bytes):
            exchange.answer = bytearray(exchange.answer)
        exchange.answer += piece
    size, most = len(exchange.answer), exchange.gateway.settings.max_answer_bytes
    if size > most:
        cancel(exchange)
        _backend_fault(exchange, "backend_error", f"answered with more than {most} bytes")
    elif size > exchange.gateway.bodies.small and (refusal := exchange.hold_answer(size, most)) is not None:
        cancel(exchange)
        settle.fail(exchange, refusal, end_reason="upstream_error")


def _unary_finished(exchange: "Exchange") -> None:
    """Look at the answer, settle, and hand it on."""
    body = bytes(exchange.answer)
    if exchange.status >= 300:
        _relay_error(exchange, body)
        return
    if exchange.answer_type is not media.JSON:
        tally.fill(exchange, partial(settle.answer, exchange, body))
        return
    try:
        if not body.isascii():
            body.decode()
        if not endpoints.is_free_form(exchange):
            usage = answer_usage(body)
            # Nothing is believed that would make a call free; the usual usage is seen at a glance.
            if usage is not None and not (
                usage.prompt_tokens
                and 0 < usage.prompt_tokens <= MAX_TOKENS
                and 0 <= (usage.completion_tokens or 0) <= MAX_TOKENS
            ):
                usage = tally.believe(exchange, usage)
            exchange.usage = usage
        converted = exchange.endpoint.convert(exchange, body)
    except (
        msgspec.DecodeError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        _complain(exchange, "answered with something that cannot be read", str(error))
        _backend_fault(exchange, "backend_error", "answered with something that is not what it should be")
        return
    if exchange.usage is None:
        tally.fill(exchange, partial(settle.answer, exchange, converted), answer=body)
    else:
        settle.answer(exchange, converted)


def _relay_error(exchange: "Exchange", body: bytes) -> None:
    backend = exchange.model.backend
    if backend.kind == "worker":
        headers = {"retry-after": exchange.retry_after.decode("latin-1")} if exchange.retry_after else {}
        settle.answer_error(exchange, exchange.status, body, headers)  # our own worker speaks our own errors
        return
    if exchange.status >= 500 or exchange.status < 400:
        # Not what it said: that may repeat the prompt, or the key it was called with.
        _complain(exchange, f"answered with status {exchange.status}", f"{len(body)} bytes")
    status, body, headers = backend_error.translate(
        exchange.status, body, retry_after=exchange.retry_after, backend=backend.name
    )
    settle.answer_error(exchange, status, body, headers)


# -- a streamed answer


def _stream_finished(exchange: "Exchange", stream: Stream) -> None:
    """The last events wait for the usage record, so that a complete answer is always a recorded one."""
    rest = stream.cutter.rest()
    if rest.strip():
        rest = stream.read(rest.rstrip(b"\r\n") + b"\n\n")
        stream.keep(rest)
    reader = stream.reader
    if stream.ends_with_close and not reader.done:
        failed(exchange, Failure.CLOSED, "closed without [DONE]")
        return
    if reader.error is not None:
        # A worker, or another Lingpai, tells so that a model took too long.
        is_late = b'"code":"backend_timeout"' in reader.error
        _end_stream(exchange, stream, rest, "timeout" if is_late else "upstream_error")
    else:
        _end_stream(exchange, stream, rest + sse.DONE, "complete")


def _end_stream(exchange: "Exchange", stream: Stream, last: bytes, end_reason: settle.EndReason) -> None:
    exchange.usage = tally.believe(exchange, stream.reported)
    end = partial(settle.end_stream, exchange, stream, last, end_reason=end_reason)
    if exchange.usage is None:
        tally.fill(exchange, end)
    else:
        end()


# -- no answer, or not all of it

_CODES = {
    Failure.CONNECT: "backend_unavailable",
    Failure.CONNECT_TIMEOUT: "backend_unavailable",
    Failure.TIMEOUT: "backend_timeout",
    Failure.IDLE: "backend_timeout",
    Failure.CLOSED: "backend_error",
    Failure.GARBAGE: "backend_error",
}


def failed(exchange: "Exchange", failure: Failure, detail: str) -> None:
    """Tell the caller that the backend failed: as an error answer, or as the last event of a stream."""
    if exchange.is_over:
        return
    _complain(exchange, failure.value, detail)
    if _CODES[failure] == "backend_unavailable":
        exchange.gateway.on_unreachable(exchange.model.backend)
    _backend_fault(exchange, _CODES[failure], failure.value)


def _complain(exchange: "Exchange", what: str, detail: str) -> None:
    exchange.gateway.complaints.about(exchange.model.backend.name, what, detail, exchange.request_id)


def _backend_fault(exchange: "Exchange", code: str, what: str) -> None:
    headers = {"retry-after": "2"} if code == "backend_unavailable" else {}
    error = LingpaiError(code, f"Backend `{exchange.model.backend.name}` {what}. Try again.", headers=headers)
    end_reason: settle.EndReason = "timeout" if code == "backend_timeout" else "upstream_error"
    if exchange.stream is not None:
        last = sse.data_event(msgspec.json.encode(error.body()))
        _end_stream(exchange, exchange.stream, last, end_reason)
    else:
        settle.fail(exchange, error, end_reason=end_reason)
