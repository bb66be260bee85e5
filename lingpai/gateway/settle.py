"""Step 6: the record first, then the last bytes.

Whatever way a call ends, it ends here: one usage record goes to the journal, and when it is written (`recorded`), the
answer (or the last piece of a stream) goes to the caller. A call that the backend did not answer is not charged.

What was reserved for the call stays so until its record is written, and then what was not used goes back; when it
cannot be written all of it does. There is one settlement per call, here or in `give_back`: `is_admitted` sees to that.
"""

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from lingpai.errors import LingpaiError
from lingpai.gateway import farewell, refused, tally
from lingpai.gateway.admit import give_back, keep
from lingpai.gateway.answer import STATUS_LINE, header_lines
from lingpai.gateway.charge import charge
from lingpai.gateway.media import JSON
from lingpai.metering.records import Currency, UsageRecord
from lingpai.storage.trail import POLICY_CODES
from lingpai.wire import backend_error, sse
from lingpai.wire.usage import tokens

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange
    from lingpai.gateway.stream import Stream
    from lingpai.principal import Principal

log = logging.getLogger("lingpai.gateway")

EndReason = Literal["complete", "client_gone", "upstream_error", "timeout", "refused", "stopped"]


# -- ends of a call


def answer(exchange: "Exchange", body: bytes) -> None:
    """A complete unary answer."""
    exchange.final = _unary(exchange, exchange.status, body)
    _record(exchange, "complete", charged=1)


def answer_error(exchange: "Exchange", status: int, body: bytes, headers: dict[str, str]) -> None:
    """An error answer of the backend. It is charged when the caller could have avoided it."""
    exchange.status = status
    exchange.extra_headers += header_lines(headers)
    exchange.final = _unary(exchange, status, body)
    _record_error(exchange)


def _record_error(exchange: "Exchange") -> None:
    status = exchange.status
    charged = 1 if status < 500 and status != 429 else 0
    if not charged:
        give_back(exchange)
    end_reason: EndReason = "timeout" if status == 504 else "upstream_error"
    _record(exchange, "complete" if status < 500 else end_reason, charged=charged)


def fail(exchange: "Exchange", error: LingpaiError, *, end_reason: EndReason) -> None:
    """The backend did not answer: the caller gets an error and is not charged."""
    give_back(exchange)
    _prepare_error(exchange, error)
    _record(exchange, end_reason, charged=0)


def refuse(exchange: "Exchange", error: LingpaiError) -> None:
    """The call is turned away. It is recorded when it is known who called."""
    give_back(exchange)
    _prepare_error(exchange, error)
    if error.code in POLICY_CODES:
        refused.report(exchange, error)
    if exchange.principal is None:
        exchange.is_over = True
        _count(exchange)
        deliver(exchange)
    else:
        _record(exchange, "refused", charged=0)


def refuse_unread(exchange: "Exchange", error: LingpaiError) -> None:
    """The call is turned away although its body is still coming.

    Nothing was used, so the answer does not wait for the record; who called may not be known before the answer is out.
    """
    exchange.is_over = True
    exchange.keep_alive = False
    _prepare_error(exchange, error)
    if error.code in POLICY_CODES:
        refused.report(exchange, error)
    if exchange.principal is None:
        _count(exchange)
    else:
        record_unread(exchange)
    exchange.front.write(exchange.final)
    exchange.front.finish_and_linger()


def record_unread(exchange: "Exchange") -> None:
    """Record a call that was turned away before its body was read."""
    _record(exchange, "refused", charged=0, is_answered=True)


def end_stream(exchange: "Exchange", stream: "Stream", last: bytes, *, end_reason: EndReason) -> None:
    """The last events of a stream."""
    exchange.final = stream.last(last)
    _record(exchange, end_reason, charged=1)


def abandon(exchange: "Exchange") -> None:
    """The caller left. What they had until then is recorded; nothing can be sent.

    A call that still waited for a limit, or for a connection to its backend, is recorded, too, and charged nothing. One
    that is complete but for counting its tokens ends as it would have, and so does one that the backend has begun to
    refuse. The backend is stopped at once, unless it has only the usage left to tell.
    """
    if exchange in exchange.gateway.counting:
        return
    if exchange.is_admitted:
        _abandon_admitted(exchange)
    elif exchange.place is not None:
        exchange.gateway.queue.leave(exchange)
        _record(exchange, "client_gone", charged=0)
    exchange.is_over = True


def _abandon_admitted(exchange: "Exchange") -> None:
    upstream = exchange.upstream
    if upstream is None and not exchange.status:  # no connection yet: nobody is at work on it
        give_back(exchange)
        _record(exchange, "client_gone", charged=0)
        return
    exchange.is_over = exchange.is_leaving = True
    if farewell.is_due(exchange):
        farewell.begin(exchange, partial(_account, exchange))
        return
    if upstream is not None:
        upstream.abort()
    if exchange.status >= 300:
        exchange.is_leaving = False
        backend = exchange.model.backend
        if backend.kind != "worker":  # the caller would have heard of it in our words
            exchange.status, *_ = backend_error.translate(
                exchange.status, b"", retry_after=None, backend=backend.name
            )
        _record_error(exchange)
    else:
        _account(exchange, is_stopping=False)


def _account(exchange: "Exchange", *, is_stopping: bool) -> None:
    stream = exchange.stream
    exchange.usage = None if stream is None else tally.believe(exchange, stream.reported)
    if is_stopping:  # no time to count
        exchange.usage = exchange.usage or tally.estimated(exchange)
        _left(exchange)
    elif exchange.usage is None:
        tally.fill(exchange, lambda: _left(exchange))
    else:
        _left(exchange)


def _left(exchange: "Exchange") -> None:
    exchange.is_leaving = False
    _record(exchange, "client_gone", charged=1)


def stop(exchange: "Exchange") -> None:
    """The server ends."""
    cut_off(
        exchange,
        LingpaiError("shutting_down", "The server is stopping. Try again.", headers={"retry-after": "1"}),
    )


def cut_off(exchange: "Exchange", error: LingpaiError, *, is_charged: bool = False) -> None:
    """The call ends before its time: a stream gets a last event, a waiting caller an error.

    A stream is charged what was handed on; a caller who has no answer yet is, with `is_charged`, charged the prompt.
    """
    exchange.keep_alive = False
    exchange.gateway.queue.leave(exchange)
    if exchange.stream is not None:
        reported = tally.believe(exchange, exchange.stream.reported)
        exchange.usage = reported or tally.estimated(exchange)
        last = sse.data_event(msgspec.json.encode(error.body()))
        end_stream(exchange, exchange.stream, last, end_reason="stopped")
    elif not exchange.is_admitted:
        refuse(exchange, error)
    elif is_charged:
        exchange.usage = tally.estimated(exchange)
        _prepare_error(exchange, error)
        _record(exchange, "stopped", charged=1)
    else:
        fail(exchange, error, end_reason="stopped")


def break_off(exchange: "Exchange") -> None:
    """A fault of ours: an error for the caller, or for who reads a stream a last event that says so.

    Nothing here looks into what the backend has sent, which may be what we have stumbled over.
    """
    if exchange.is_leaving:
        exchange.usage = tally.roughly(exchange)
        _left(exchange)
        return
    if exchange.is_over:
        return
    error = LingpaiError(
        "internal_error",
        f"Something went wrong inside Lingpai. The operator finds the cause in the log under "
        f"{exchange.request_id.decode()}.",
    )
    stream = exchange.stream
    if stream is not None:
        exchange.usage = tally.roughly(exchange)
        last = sse.data_event(msgspec.json.encode(error.body()))
        end_stream(exchange, stream, last, end_reason="upstream_error")
    elif exchange.is_admitted:
        fail(exchange, error, end_reason="upstream_error")
    else:
        exchange.gateway.queue.leave(exchange)
        refuse(exchange, error)


# -- the record


def _count(exchange: "Exchange") -> None:
    gateway = exchange.gateway
    gateway.metrics.record(
        exchange.endpoint.name, "", exchange.status, gateway.loop.time() - exchange.started
    )
    if gateway.call_log is not None:
        gateway.call_log.write_refused(
            exchange.request_id.decode(),
            status=exchange.status,
            endpoint=exchange.endpoint.name,
            duration_ms=(gateway.loop.time() - exchange.started) * 1000,
            address=exchange.front.caller_address,
        )


def _record(exchange: "Exchange", end_reason: EndReason, *, charged: int, is_answered: bool = False) -> None:
    """Write the record, and go on with `recorded` when it is written or cannot be. Does not raise."""
    gateway = exchange.gateway
    exchange.is_over = True
    then = _nothing if is_answered else exchange.recorded
    try:
        record = _usage_record(exchange, end_reason, charged)
        name = exchange.model_name if exchange.model is not None else ""
        gateway.metrics.record(exchange.endpoint.name, name, exchange.status, record.duration_ms / 1000)
        if gateway.call_log is not None:
            gateway.call_log.write(
                record,
                token_id=exchange.principal.token_id,  # type: ignore[union-attr]  # as in `_usage_record`
                certificate_names=exchange.front.certificate_names,
            )
        gateway.journal.append(record, then)
    except Exception:  # an outermost edge: the caller hears of it, and nothing stays held
        log.exception("call %s cannot be recorded", exchange.request_id.decode())
        then(False)


def _usage_record(exchange: "Exchange", end_reason: EndReason, charged: int) -> UsageRecord:
    """What there is to say of the call; the limits have taken by then what it is charged."""
    model = exchange.model
    principal: Principal = exchange.principal  # type: ignore[assignment]  # only calls with a principal are recorded
    usage = exchange.usage
    prompt, completion, cached, reasoning = tokens(usage)
    cost = charged_cost = 0
    currency: Currency = ""
    charged_tokens = prompt + completion if charged else 0
    if charged and (model.price is not None or exchange.weight is not None):
        cost, currency, charged_tokens, charged_cost = charge(exchange, prompt, completion, cached)
    first_byte_at = exchange.first_byte_at
    return UsageRecord(
        exchange.request_id.decode(),
        principal.key_id,
        principal.user_id,
        model.id if model is not None else "",
        model.backend.name if model is not None else "",
        model.task if model is not None else "",
        exchange.endpoint.name,
        exchange.started_at,
        (first_byte_at - exchange.started) * 1000 if first_byte_at else None,
        (exchange.gateway.loop.time() - exchange.started) * 1000,
        prompt,
        completion,
        cached,
        reasoning,
        "none" if usage is None
        else "counted" if exchange.is_counted
        else "estimated" if usage.estimated
        else "reported",
        exchange.status,
        end_reason,
        charged,
        exchange.retries,
        exchange.front.caller_address,
        principal.project_id,
        principal.client_id or "",
        charged_tokens,
        cost,
        currency,
        charged_cost,
        exchange.queued_ms,
    )  # fmt: skip


def _nothing(is_written: bool | None) -> None:
    """What follows the record of a call that is answered already."""


def recorded(exchange: "Exchange", is_written: bool | None) -> None:
    """The journal has the record (or cannot take it): now, and only now, the caller gets the end of the answer.

    A record of which the disk did not confirm that it is safe (None) does not let the answer out, but it is charged:
    what is recorded and what is counted must not part.
    """
    if is_written is False:
        give_back(exchange)
    elif exchange.is_admitted and exchange.limits.needs_settling:  # type: ignore[union-attr]  # who is admitted has limits
        keep(exchange)
    if not is_written:
        _withhold(exchange)
    deliver(exchange)


def _withhold(exchange: "Exchange") -> None:
    if exchange.stream is not None:
        exchange.final = b""  # the stream breaks off: an incomplete answer is what the caller must see
        exchange.keep_alive = False
        return
    error = LingpaiError(
        "storage_unavailable",
        "The answer could not be recorded (is the disk full?) and is withheld. Tell the operator.",
    )
    _prepare_error(exchange, error)


def deliver(exchange: "Exchange") -> None:
    """Send what is left of the answer, if anybody is there to read it."""
    front = exchange.front
    if front.call is exchange:
        if exchange.final:
            front.transport.write(exchange.final)
        front.finish(keep_alive=exchange.keep_alive)


# -- the bytes


def _prepare_error(exchange: "Exchange", error: LingpaiError) -> None:
    exchange.status = error.status
    exchange.answer_type = JSON
    exchange.extra_headers += header_lines(dict(error.headers))
    exchange.final = _unary(exchange, error.status, msgspec.json.encode(error.body()))


def _unary(exchange: "Exchange", status: int, body: bytes) -> bytes:
    gateway, request_id, limits = exchange.gateway, exchange.request_id, exchange.limits
    if limits is not None:
        meters = limits.meters
    else:  # refused before it was known which model is called
        meters = exchange.account.meters if exchange.account is not None else ()
    now = time.time()  # what is left is told of now: the call may have taken minutes
    return (
        b"%b%bcontent-type: %b\r\ncache-control: no-store\r\ncontent-length: %d\r\n"
        b"x-request-id: %b\r\nrequest-id: %b\r\nopenai-processing-ms: %d\r\n%b%b%b%b\r\n%b"
    ) % (
        STATUS_LINE[status],
        gateway.date_line.at(now),
        exchange.answer_type,
        len(body),
        request_id,
        request_id,
        (gateway.loop.time() - exchange.started) * 1000,
        gateway.rate_limit_headers(meters, now) if meters else b"",
        exchange.extra_headers,
        exchange.cors,
        b"" if exchange.keep_alive else b"connection: close\r\n",
        body,
    )


def stream_head(exchange: "Exchange", stream: "Stream") -> bytes:
    """The head of a streamed answer."""
    if not stream.is_chunked:
        exchange.keep_alive = False
    gateway, request_id = exchange.gateway, exchange.request_id
    meters = exchange.limits.meters  # type: ignore[union-attr]  # who is admitted has limits
    now = time.time()  # as above
    return (
        b"%b%bcontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
        b"x-request-id: %b\r\nrequest-id: %b\r\nopenai-processing-ms: %d\r\n%b%b%b%b%b\r\n"
    ) % (
        STATUS_LINE[200],
        gateway.date_line.at(now),
        request_id,
        request_id,
        (gateway.loop.time() - exchange.started) * 1000,
        b"transfer-encoding: chunked\r\n" if stream.is_chunked else b"",
        gateway.rate_limit_headers(meters, now) if meters else b"",
        exchange.extra_headers,
        exchange.cors,
        b"" if exchange.keep_alive else b"connection: close\r\n",
    )
