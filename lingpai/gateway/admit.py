"""Step 4: do all limits agree? What the call may take is taken from each of them, or from none."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from lingpai.errors import LingpaiError
from lingpai.gateway import weigh
from lingpai.quotas.limit_set import LimitSet
from lingpai.quotas.refusal import Refusal

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

_FULL_QUEUE_S: Final = 1.0  # whoever is told 0 s comes back at once and finds it as full


def admit(exchange: "Exchange", path: bytes, body: bytes) -> bytes | None:
    """Take from every limit what the call may use, and answer the body to send: `body`, maybe with a length in it.

    None when the call has to wait in the queue, which will go on with it (`exchange.admitted`). Raises LingpaiError when
    a limit refuses or usage cannot be recorded.
    """
    gateway = exchange.gateway
    if not gateway.journal.healthy:
        raise LingpaiError(
            "storage_unavailable",
            "Usage cannot be recorded now (is the disk full?), so no call is accepted. Tell the operator.",
            headers={"retry-after": "5"},
        )
    # Read now, not when the head came: the record must carry the very time that the limits were asked at.
    exchange.started_at = time.time()
    limits: LimitSet = exchange.limits  # type: ignore[assignment]  # known by now
    if limits.meters:
        if limits.weighs:
            exchange.weight = weigh.weigh_at_most(exchange, body) or weigh.weigh(exchange, body)
        if gateway.queue.lines and (refusal := gateway.queue.refusal_of_newcomer(exchange)) is not None:
            pass  # others wait for one of these limits already
        elif limits.weighs:
            refusal = reserve(exchange, body)
        else:
            refusal = gateway.limiter.admit(limits, exchange.started_at)
        if refusal is not None:
            exchange.request_path, exchange.request_body = path, body
            if gateway.queue.enter(exchange, refusal):
                return None
            refuse(exchange, refusal)
    exchange.is_admitted = True
    return body if exchange.weight is None else fit(exchange, body)


def ask_again(exchange: "Exchange") -> Refusal | None:
    """Ask the limits for a call that has waited."""
    exchange.started_at = time.time()
    limits = cast("LimitSet", exchange.limits)
    if limits.weighs:
        refusal = reserve(exchange, exchange.request_body)
    else:
        refusal = exchange.gateway.limiter.admit(limits, exchange.started_at)
    exchange.is_admitted = refusal is None
    return refusal


def reserve(exchange: "Exchange", body: bytes) -> Refusal | None:
    """Reserve what a weighed call may use; `exchange.reserved` is what was granted."""
    limiter, now = exchange.gateway.limiter, exchange.started_at
    limits: LimitSet = exchange.limits  # type: ignore[assignment]  # known by now
    weight: weigh.Weight = exchange.weight  # type: ignore[assignment]  # weighed by now
    granted = limiter.reserve(limits, now, weight.least, weight.most)
    if isinstance(granted, Refusal) and weight.least is weight.most:
        weight = exchange.weight = weigh.weigh(exchange, body)
        granted = limiter.reserve(limits, now, weight.least, weight.most)
    if isinstance(granted, Refusal):
        return granted
    exchange.reserved = granted
    return None


def fit(exchange: "Exchange", body: bytes) -> bytes:
    """`body` with a length that fits into what was granted."""
    weight = exchange.weight
    return body if weight is None else weigh.fit(weight, exchange.reserved, exchange.model.price, body)


def refuse(exchange: "Exchange", refusal: Refusal) -> None:
    """Raise what the caller hears of a refusal, and of having waited in vain, or of not having been let into the queue."""
    now, message = time.time(), refusal.message
    if exchange.queued_ms:
        message += f" The call waited {exchange.queued_ms / 1000:.1f} s for room."
    elif refusal.wait_s and exchange.gateway.queue.is_full_for(exchange):
        message += " It could not wait for room either: as many calls as may are waiting already."
        refusal = replace(refusal, free_at=max(refusal.free_at, now + _FULL_QUEUE_S))
    exchange.extra_headers += refusal.headers(now)
    raise LingpaiError(refusal.code, message)


def give_back(exchange: "Exchange") -> None:
    """Undo `admit`: the call was not answered by the backend and is not charged."""
    if exchange.is_admitted:
        exchange.is_admitted = False
        limits = cast("LimitSet", exchange.limits)
        if limits.meters:
            exchange.gateway.limiter.give_back(limits, exchange.started_at, exchange.reserved)


def keep(exchange: "Exchange") -> None:
    """End the reservation of a call that is charged: what it did not use goes back. Once per call."""
    if exchange.is_admitted:
        exchange.is_admitted = False
        limits = cast("LimitSet", exchange.limits)
        exchange.gateway.limiter.settle(limits, exchange.started_at, exchange.reserved, exchange.used)
