"""What a call is charged: its tokens and its cost, as far as they could be taken from the limits."""

from typing import TYPE_CHECKING, Final

from lingpai.metering.records import Currency
from lingpai.quotas.amounts import Amounts

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

KEPT: Final = Amounts(1, 0, 0, 0, 0)
"""What a call uses that is not weighed: a request. Its place among concurrent calls goes back."""

Charge = tuple[int, Currency, int, int]
"""Cost in nano, its currency, tokens charged, cost charged."""


def charge(exchange: "Exchange", prompt: int, completion: int, cached: int) -> Charge:
    """Work out what a call that is charged used, and have the limits take it (`exchange.used`).

    For a call that used more than was reserved, more is reserved, as far as there is more: the record says how much.
    """
    price = exchange.model.price
    total = prompt + completion
    cost = 0
    currency: Currency = ""
    if price is not None:
        currency = price.currency
        # An error of the backend about the caller's input is no service.
        cost = price.cost(prompt, completion, cached) if exchange.status < 400 else 0
    limits, reserved = exchange.limits, exchange.reserved
    is_weighed = limits is not None and limits.weighs
    if not is_weighed and exchange.weight is None:
        return cost, currency, total, cost
    used = Amounts(1, total, cost if currency == "USD" else 0, cost if currency == "CNY" else 0, 0)
    if not is_weighed:
        # Limits are being read that know what it held so far. Whether they hear of its end is not sure, so this tells them.
        exchange.reserved = Amounts(*map(max, reserved, used))
        return cost, currency, total, cost
    if total <= reserved.tokens and used.usd <= reserved.usd and used.cny <= reserved.cny:
        exchange.used = used
        return cost, currency, total, cost
    taken = _take_more(exchange, used)
    return cost, currency, taken.tokens, taken.usd + taken.cny


def _take_more(exchange: "Exchange", used: Amounts) -> Amounts:
    gateway, model = exchange.gateway, exchange.model
    if (
        used.tokens > exchange.reserved.tokens
        and exchange.weight is not None
        and exchange.weight.answers.name
    ):
        gateway.complaints.about(
            model.backend.name,
            "used more tokens than it was told to",
            f"{used.tokens} of {exchange.reserved.tokens}, model {model.id}",
            exchange.request_id,
        )
    limits = exchange.limits
    assert limits is not None  # noqa: S101  `charge` has looked, for the reader of types
    exchange.reserved = gateway.limiter.extend(limits, exchange.started_at, exchange.reserved, used)
    taken = exchange.used = Amounts(*map(min, used, exchange.reserved))
    if taken.tokens < used.tokens or taken.usd < used.usd or taken.cny < used.cny:
        gateway.complaints.about(
            model.backend.name,
            "used more than the limits of a call had left",
            f"{used.tokens} tokens, charged {taken.tokens}, model {model.id}",
            exchange.request_id,
        )
    return taken
