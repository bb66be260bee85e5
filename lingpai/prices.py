"""What a model costs: prices per million tokens, and the cost of one call. Integers inside; a float never.

A price is written in decimal, as providers do (`input = "0.5"`, per million tokens), and kept in 10^-12 of its currency
per token, which six decimals fill exactly. A cost is in 10^-9 (nano), rounded up once per call.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, cast, get_args

from lingpai.errors import did_you_mean

Currency = Literal["USD", "CNY"]

NANO: Final = 10**9
"""How many of the units that amounts of money are kept in make one of the currency's."""
MAX_PRICE: Final = 1_000_000
"""The highest price of a million tokens, and of a request."""
MAX_TOKENS: Final = 10**9
"""The most tokens one call can have used; what a backend says beyond that is not believed."""
MAX_COST: Final = 10**18
"""What a usage record can hold, in nano."""

_PICO_PER_NANO: Final = 1000
_DECIMAL: Final = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,6})?", re.ASCII)
_KEYS: Final = ("input", "output", "cached_input", "request", "currency")
_EXAMPLE: Final = 'Write a decimal number with at most six decimals, such as "0.5".'


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """`input`, `output` and `cached_input` are in 10^-12 of `currency` per token, `request` in 10^-9 per call."""

    input: int
    output: int
    cached_input: int
    request: int
    currency: Currency

    def cost(self, prompt: int, completion: int, cached: int = 0) -> int:
        """What a call costs, in nano: 0 to `MAX_COST`. `cached` of the prompt's tokens have their own price.

        Counts outside of 0 to `MAX_TOKENS` are taken for the nearest of these; `cached` is at most `prompt`.
        """
        prompt, completion = _bounded(prompt), _bounded(completion)
        cached = min(_bounded(cached), prompt)
        pico = (prompt - cached) * self.input + cached * self.cached_input + completion * self.output
        return min(-(-pico // _PICO_PER_NANO) + self.request, MAX_COST)

    def highest_cost(self, prompt: int, completion: int) -> int:
        """The most that a call with so many tokens can cost, whatever of its prompt is cached."""
        return max(self.cost(prompt, completion), self.cost(prompt, completion, prompt))

    def tokens_for(self, nano: int, prompt: int) -> int | None:
        """How many tokens of an answer `nano` pays for after `prompt`; negative when it does not pay for that.

        None when answers cost nothing.
        """
        if not self.output:
            return None
        left = (nano - self.highest_cost(prompt, 0)) * _PICO_PER_NANO
        return left // self.output

    def as_written(self) -> dict[str, str]:
        """The price as an operator writes it: decimals of the currency, tokens by the million."""
        return {
            "input": _per_million(self.input),
            "output": _per_million(self.output),
            "cached_input": _per_million(self.cached_input),
            "request": _plain(Decimal(self.request) / NANO),
            "currency": self.currency,
        }


def parse_price(table: Mapping[str, Any]) -> Price:
    """The price that a table of the settings spells: `{input, output, cached_input, request, currency}`.

    Amounts are decimals per million tokens (`request`: per call), as text or as a number; what is missing costs
    nothing, `cached_input` as much as `input`. Raises ValueError, beginning with the key, for anything else: negative
    or infinite amounts, exponents, more than six decimals, over `MAX_PRICE`.
    """
    for key in table:
        if key not in _KEYS:
            raise ValueError(f"Unknown key `{key}`.{did_you_mean(str(key), _KEYS)}")
    input_ = _amount(table, "input", "0")
    return Price(
        input=input_,
        output=_amount(table, "output", "0"),
        cached_input=_amount(table, "cached_input", None) if "cached_input" in table else input_,
        request=_amount(table, "request", "0") * _PICO_PER_NANO,
        currency=_currency(table.get("currency", "USD")),
    )


def decimal_text(nano: int) -> str:
    """The exact amount as a decimal without an exponent: 1_500_000 is ``0.0015``, 0 is ``0``."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)


def _amount(table: Mapping[str, Any], key: str, default: str | None) -> int:
    """An amount in 10^-6: per million tokens that is 10^-12 per token."""
    value = table.get(key, default)
    # `str` of a float is the shortest decimal that means it: what stands in the file, unless it has an exponent.
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(f"`{key}` is no price. {_EXAMPLE}")
    amount = Decimal(text)
    if amount > MAX_PRICE:
        raise ValueError(f"`{key}` is over {MAX_PRICE}.")
    return int(amount * 10**6)


def _currency(value: Any) -> Currency:
    if value not in get_args(Currency):
        raise ValueError(f"`currency` must be one of {', '.join(get_args(Currency))}.")
    return cast("Currency", value)


def _bounded(count: int) -> int:
    return 0 if count < 0 else min(count, MAX_TOKENS)


def _per_million(pico: int) -> str:
    return _plain(Decimal(pico) / 10**6)


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
