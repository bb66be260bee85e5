"""Amounts of money, kept in 10^-9 of a currency, as people read them."""

from typing import Final

NANO: Final = 10**9
"""How many of our units make one of the currency's."""


def decimal_text(nano: int) -> str:
    """The exact amount as a decimal without an exponent: 1_500_000 is ``0.0015``, 0 is ``0``."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)
