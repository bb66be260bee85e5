"""How things are shown."""

import pytest

from lingpai.cli.output import as_text, csv_cell, printable


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(start):
    assert csv_cell(f"{start}1") == f"'{start}1"


@pytest.mark.parametrize("value", [-5, -0.5, 0, None, "", "plain", "a=b"])
def test_numbers_and_harmless_texts_stay_as_they_are(value):
    assert csv_cell(value) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\x0db"),
        ("\u202egpj.exe", "\\x202egpj.exe"),
        ("\x9b1m", "\\x9b1m"),
        ("tab\tand\nline\r\n", "tab\tand\nline\n"),
        ("钥匙 🔑", "钥匙 🔑"),
    ],
)
def test_control_characters_are_spelled_out(text, shown):
    assert printable(text) == shown


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
