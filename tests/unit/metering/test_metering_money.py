"""Exact amounts as decimals."""

import pytest

from lingpai.metering.money import decimal_text


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
