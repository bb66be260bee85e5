"""How things are shown."""

import pytest

from lingpai.cli.output import as_text, csv_cell


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(start):
    assert csv_cell(f"{start}1") == f"'{start}1"


@pytest.mark.parametrize("value", [-5, -0.5, 0, None, "", "plain", "a=b"])
def test_numbers_and_harmless_texts_stay_as_they_are(value):
    assert csv_cell(value) == value


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (None, "–"),
        ("", "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (0.0, "0"),
        ("[red]x", "[red]x"),
    ],
)
def test_cells(cell, shown):
    assert as_text(cell).plain == shown
