"""The reference says what the code says."""

import pytest

from scripts.write_reference import REFERENCE, pages

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_reference_page_is_what_the_code_says_now(path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `make docs`"


def test_reference_has_no_other_pages():
    assert set(REFERENCE.iterdir()) == set(PAGES)
