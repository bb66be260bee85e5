"""Links lead somewhere, and files that documents name exist."""

import re

import pytest
from document_parts import ROOT, code_spans, documents, headings, links, split

_FILE = re.compile(r"\.?[\w-]+(/[\w.-]+)*(/|/[\w-]+\.(py|md|toml|lock))|Makefile|pyproject\.toml|[A-Z]+\.md")
_NOT_OURS = {"damo/nlp_structbert_sentiment-classification_chinese-base"}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_lead_to_files_and_headings(document):
    prose, _ = split(document.read_text(encoding="utf-8"))

    for link in links(prose):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in headings(split(target.read_text(encoding="utf-8"))[0]), (
                f"{link}: no such heading"
            )


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document):
    prose, _ = split(document.read_text(encoding="utf-8"))

    for span in code_spans(prose):
        if _FILE.fullmatch(span) and span not in _NOT_OURS:
            # Files of the product are also named from its package's folder: gateway/settle.py.
            assert (ROOT / span).exists() or (ROOT / "lingpai" / span).exists(), f"`{span}` does not exist"
