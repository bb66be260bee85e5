"""What limits count, and how much of it one call takes.

Money is an integer of billionths of the currency (nano), everywhere: sums of floats would drift, and a quota that
drifts is not exact.
"""

from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from lingpai.prices import NANO, decimal_text

Unit: TypeAlias = Literal["requests", "tokens", "USD", "CNY", "concurrent"]

UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
"""In the order of the fields of `Amounts`."""
MONEY: Final[frozenset[Unit]] = frozenset(("USD", "CNY"))
MONEY_DECIMALS: Final = 9


class Amounts(NamedTuple):
    """An amount per unit: requests, tokens, nano USD, nano CNY, calls at the same time. None is negative."""

    requests: int = 1
    tokens: int = 0
    usd: int = 0
    cny: int = 0
    concurrent: int = 1


ONE: Final = Amounts()
"""What a call takes that is not weighed."""
NOTHING: Final = Amounts(0, 0, 0, 0, 0)


def money(text: str) -> int:
    """The nano amount that a decimal such as ``0.5`` or ``12`` spells.

    Raises ValueError when it is not such a decimal, or has more than nine decimals.
    """
    whole, point, decimals = text.partition(".")
    if not (whole + decimals).isascii() or not (whole + decimals).isdecimal() or (point and not decimals):
        raise ValueError(f"not a decimal number: {text!r}")
    if len(decimals) > MONEY_DECIMALS:
        raise ValueError(f"more than {MONEY_DECIMALS} decimals: {text!r}")
    return int(Decimal(text) * NANO)


def amount_text(amount: int, unit: Unit) -> str:
    """The bare number: ``2000``, and for money the shortest decimal, ``0.5``."""
    return decimal_text(amount) if unit in MONEY else str(amount)


def amount_words(amount: int, unit: Unit) -> str:
    """For sentences: ``1 request``, ``2000 tokens``, ``0.5 USD``, ``8 concurrent requests``."""
    number = amount_text(amount, unit)
    if unit in MONEY:
        return f"{number} {unit}"
    if unit == "concurrent":
        return f"{number} concurrent {'request' if amount == 1 else 'requests'}"
    return f"{number} {unit.removesuffix('s') if amount == 1 else unit}"
