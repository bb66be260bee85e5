"""Prices: decimals in, integers inside, rounded up once per call; nothing that could make a cost negative or absurd."""

from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.prices import MAX_COST, MAX_TOKENS, Price, decimal_text, parse_price

DECIMALS = st.decimals(min_value=0, max_value=1_000_000, places=6)
COUNTS = st.integers(0, MAX_TOKENS)


def price(**fields):
    return parse_price(fields)


def test_price_is_per_million_tokens():
    assert price(input="0.5", output="1.5").cost(1_000_000, 1_000_000) == 2 * 10**9


def test_cached_tokens_have_their_own_price():
    assert price(input="1", cached_input="0.1").cost(1_000_000, 0, 400_000) == 640_000_000


def test_cached_tokens_cost_as_much_as_others_unless_said_otherwise():
    assert price(input="1").cost(1_000_000, 0, 400_000) == 10**9


def test_request_has_a_price_of_its_own():
    assert price(request="0.01", currency="CNY").cost(0, 0) == 10_000_000


def test_cost_is_rounded_up_once_for_the_whole_call():
    """A third of a nano for each direction makes one nano, not two."""
    third = Price(input=333, output=333, cached_input=0, request=0, currency="USD")

    assert third.cost(1, 1) == 1
    assert third.cost(0, 0) == 0


@given(st.tuples(DECIMALS, DECIMALS, DECIMALS, DECIMALS), st.tuples(COUNTS, COUNTS, COUNTS))
def test_cost_is_what_decimal_arithmetic_says(amounts, counts):
    (input_, output, cached_input, request), (prompt, completion, cached) = amounts, counts
    cached = min(cached, prompt)
    exact = ((prompt - cached) * input_ + cached * cached_input + completion * output) / 10**6 + request
    nano = int((exact * 10**9).to_integral_value(ROUND_CEILING))

    made = price(
        input=str(input_), output=str(output), cached_input=str(cached_input), request=f"{request:f}"
    )

    assert made.cost(prompt, completion, cached) == min(nano, MAX_COST)


@given(DECIMALS, DECIMALS, DECIMALS, COUNTS, COUNTS)
def test_highest_cost_bounds_the_cost_however_much_is_cached(input_, output, cached_input, prompt, cached):
    made = price(input=str(input_), output=str(output), cached_input=str(cached_input))

    assert made.cost(prompt, 7, min(cached, prompt)) <= made.highest_cost(prompt, 7)


@given(DECIMALS, DECIMALS, st.integers(0, 10**12), st.integers(0, 10**6))
def test_tokens_that_money_pays_for_never_cost_more(input_, output, nano, prompt):
    made = price(input=str(input_), output=str(output))

    tokens = made.tokens_for(nano, prompt)

    assert tokens is None or tokens < 0 or made.cost(prompt, min(tokens, MAX_TOKENS)) <= nano


@pytest.mark.parametrize(("count", "as_if"), [(-5, 0), (10**30, MAX_TOKENS)])
def test_counts_that_cannot_be_are_bounded(count, as_if):
    made = price(input="1000000", output="1000000")

    assert made.cost(count, count) == made.cost(as_if, as_if) <= MAX_COST


@pytest.mark.parametrize(
    "value", ["-1", "1e3", "1E-3", "nan", "inf", "", " 1", "0.1234567", "1_000", "٣", ".5", "1.", True, None, [1], 1e-7, float("nan"), float("inf"), -0.5]
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused_with_the_key(value):
    with pytest.raises(ValueError, match="`output`"):
        price(output=value)


def test_price_over_the_highest_is_refused():
    with pytest.raises(ValueError, match="over 1000000"):
        price(input="1000001")


@pytest.mark.parametrize("value", [2, 2.5, "2.5"])
def test_numbers_and_texts_are_the_same(value):
    assert price(input=value).input == int(Decimal(str(value)) * 10**6)


def test_unknown_key_and_currency_are_refused():
    with pytest.raises(ValueError, match=r"Unknown key `imput`.* Did you mean `input`"):
        price(imput="1")
    with pytest.raises(ValueError, match="USD, CNY"):
        price(currency="EUR")


def test_price_is_shown_as_it_was_written():
    written = {
        "input": "0.5",
        "output": "12",
        "cached_input": "0.000001",
        "request": "0.01",
        "currency": "CNY",
    }

    assert price(**written).as_written() == written


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_500_000, "0.0015"),
        (10**9, "1"),
        (100 * 10**9, "100"),
        (1_230_000_000, "1.23"),
        (10**18 + 1, "1000000000.000000001"),
    ],
)
def test_amounts_are_written_without_exponents_and_trailing_zeros(nano, text):
    """So that a program in any language reads the same number."""
    assert decimal_text(nano) == text
