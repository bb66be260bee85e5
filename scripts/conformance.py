"""Which requirements of the standards hold, and the tests that show it: `tests/conformance/requirements/` as a page.

A file there is a section of the page. It says in our own words what this server does, and names the tests.
"""

import pathlib
from typing import Final, Literal

import msgspec

from scripts.markdown_table import row

ROOT: Final = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "tests" / "conformance" / "requirements"

INTRODUCTION: Final = """
<!-- Written by scripts/write_reference.py from tests/conformance/requirements/; `make docs` writes it anew. -->

# Conformance

What the standards require of a server like this one, what Lingpai does about it, and the tests that show it. The first
column has the standard's own numbering; the level is the standard's *must*, or a *should* that is kept. Where something
is not offered, or deliberately done otherwise, the last column says so and why.

A test is run by its name, with its file before it. Brackets behind a name choose one row of the table that the test
goes through; without them it goes through all:

```sh
.venv/bin/python -m pytest "{example}"
```

"""


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sentence about what the server does, with tests for it or the reason why there are none."""

    section: str
    level: Literal["must", "should"]
    text: str
    tests: tuple[str, ...] = ()
    not_applicable: str | None = None


class Chapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: what it is about, the standards that it goes through, and their requirements."""

    title: str
    source: str
    requirement: tuple[Requirement, ...]


def chapters() -> dict[str, Chapter]:
    """Every file by its name, in order. Raises msgspec.ValidationError for fields that are wrong or unknown."""
    files = sorted(REQUIREMENTS.glob("*.toml"))
    return {path.name: msgspec.toml.decode(path.read_bytes(), type=Chapter) for path in files}


def conformance_page() -> str:
    """All requirements, chapter by chapter."""
    found = chapters().values()
    example = next(test for chapter in found for each in chapter.requirement for test in each.tests)
    parts = [INTRODUCTION.format(example=example)]
    parts += [f"- [{each.title}](#{_anchor(each.title)}): {each.source}\n" for each in found]
    parts += [part for each in found for part in _chapter(each)]
    return "".join(parts)


def _chapter(chapter: Chapter) -> list[str]:
    head = [f"\n## {chapter.title}\n\n{chapter.source}.\n\n"]
    head += [row(["section", "level", "what holds", "test"]), row(["---"] * 4)]
    return head + [
        row([each.section, each.level, each.text, _shown_by(each)]) for each in chapter.requirement
    ]


def _shown_by(requirement: Requirement) -> str:
    if requirement.not_applicable is not None:
        return f"None: {requirement.not_applicable}"
    return "<br>".join(map(_link, requirement.tests))


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[`{name}`](../../{path})"


def _anchor(title: str) -> str:
    """As sites that show Markdown make them of headings."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
