"""Cursors: what is encoded comes back, and nothing else is accepted."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.errors import LingpaiError
from lingpai.web.paging import decode_cursor, encode_cursor, page_of, place_of


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(codec="utf-8"), max_size=40))
def test_cursor_gives_back_what_it_was_made_of(created_at: float, id_: str) -> None:
    assert decode_cursor(encode_cursor(created_at, id_)) == (created_at, id_)


def test_cursor_can_stand_in_a_url_as_it_is() -> None:
    cursor = encode_cursor(1763600000.125, "ÿÿÿ>>>")

    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[1.5]",
        b'[1, "a"]',
        b"[1.5, 2]",
        b'[1.5, "a", 3]',
        b"{}",
        b"\xff",
        b"7",
        b"[" * 300,
        b'[1.5, "\\ud800"]',
    ],
)
def test_cursor_of_another_making_is_refused(content: bytes) -> None:
    with pytest.raises(LingpaiError) as caught:
        decode_cursor(base64.urlsafe_b64encode(content).decode())

    assert (caught.value.code, caught.value.param) == ("invalid_request", "cursor")


@pytest.mark.parametrize("text", ["é", "%%%", "A", "WzEuNSwiYSJd\n!"])
def test_text_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(LingpaiError):
        decode_cursor(text)


@pytest.mark.parametrize(
    ("found", "shown", "is_followed"),
    [([], [], False), ([1], ["1"], False), ([1, 2], ["1", "2"], False), ([1, 2, 3], ["1", "2"], True)],
)
def test_page_goes_on_behind_its_last_item_when_there_is_one_more(
    found: list[int], shown: list[str], is_followed: bool
) -> None:
    page = page_of(found, 2, view=str, place=lambda item: (float(item), f"id {item}"))

    assert page.data == shown
    assert place_of(page.next_cursor) == ((2.0, "id 2") if is_followed else None)
