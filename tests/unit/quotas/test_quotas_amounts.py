"""Amounts of several units, and money without floats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.quotas.amounts import NOTHING, ONE, UNITS, Amounts, amount_text, amount_words, money


def test_a_call_that_is_not_weighed_takes_one_request_and_one_place():
    assert Amounts(requests=1, tokens=0, usd=0, cny=0, concurrent=1) == ONE
    assert sum(NOTHING) == 0


def test_units_are_in_the_order_of_the_fields():
    assert tuple(unit.casefold() for unit in UNITS) == Amounts._fields


@pytest.mark.parametrize(
    ("text", "nano"),
    [("5", 5_000_000_000), ("0.1", 100_000_000), (".5", 500_000_000), ("0.000000001", 1), ("1.000", 10**9)],
)
def test_money_is_read_exactly(text, nano):
    assert money(text) == nano


@pytest.mark.parametrize("text", ["", ".", "1.", "1.2.3", "-1", "1e3", "0.0000000001", "٣", "1 "])
def test_what_is_not_a_decimal_with_nine_decimals_at_most_is_refused(text):
    with pytest.raises(ValueError, match="decimal"):
        money(text)


@given(st.integers(0, 10**18))
def test_money_is_shown_as_the_decimal_that_reads_the_same(nano):
    assert money(amount_text(nano, "USD")) == nano


def test_amounts_are_told_in_words():
    assert amount_words(1, "requests") == "1 request"
    assert amount_words(2000, "tokens") == "2000 tokens"
    assert amount_words(1_250_000_000, "CNY") == "1.25 CNY"
    assert amount_words(8, "concurrent") == "8 concurrent requests"
