"""CSV and JSON lines: one piece at a time, safe to open, safe to read slowly."""

import pytest

from lingpai.web.export import as_csv, as_jsonl, safe_cell, spool


def test_pieces_are_made_as_they_are_asked_for():
    """What comes later has not been read yet."""
    read = []

    def chunks():
        for number in range(3):
            read.append(number)
            yield [{"n": number}]

    for pieces, before in ((as_csv(["n"], chunks()), []), (as_jsonl(chunks()), [0])):
        read.clear()
        next(pieces)
        assert read == before
        assert len(list(pieces)) >= 2


def test_csv_quotes_and_leaves_out_nothing():
    """A header even without rows; None is empty; text in any language."""
    assert b"".join(as_csv(["a", "b"], [])) == b"a,b\r\n"
    rows = [[{"a": 'x "y", z', "b": None}], [{"a": "令牌\nπ", "b": 1.5}]]
    assert b"".join(as_csv(["a", "b"], rows)).decode() == 'a,b\r\n"x ""y"", z",\r\n"令牌\nπ",1.5\r\n'


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "\nx"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    """Names are chosen by callers."""
    assert safe_cell(text) == f"'{text}"


def test_numbers_and_harmless_texts_stay():
    """Also negative numbers, which are no text."""
    assert [safe_cell(value) for value in (-1, 0.5, "a=1", None)] == [-1, 0.5, "a=1", None]


def test_spooled_pieces_are_the_same_and_their_source_is_done_with():
    """Beyond what is held in memory as well."""
    source = iter([b"x" * 700_000, b"y" * 700_000])

    pieces = spool(source)

    assert next(source, None) is None
    assert b"".join(pieces) == b"x" * 700_000 + b"y" * 700_000
