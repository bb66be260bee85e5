"""Step 4: do all limits agree? One request is taken from each of them, or from none."""

import time
from typing import TYPE_CHECKING

from lingpai.errors import LingpaiError

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange


def admit(exchange: "Exchange") -> None:
    """Take one request from every limit. Raises LingpaiError when a limit refuses or usage cannot be recorded."""
    gateway = exchange.gateway
    if not gateway.journal.healthy:
        raise LingpaiError(
            "storage_unavailable",
            "Usage cannot be recorded now (is the disk full?), so no call is accepted. Tell the operator.",
            headers={"retry-after": "5"},
        )
    # Read now, not when the head came: the record must carry the very time that the limits were asked at.
    exchange.started_at = time.time()
    meters = exchange.account.meters
    if meters:
        refusal = gateway.limiter.admit(meters, exchange.started_at)
        if refusal is not None:
            exchange.extra_headers += refusal.headers(exchange.started_at)
            raise LingpaiError(refusal.code, refusal.message)
    exchange.is_admitted = True


def give_back(exchange: "Exchange") -> None:
    """Undo `admit`: the call was not answered by the backend and is not charged."""
    if exchange.is_admitted:
        exchange.is_admitted = False
        if exchange.account.meters:
            exchange.gateway.limiter.give_back(exchange.account.meters, exchange.started_at)
