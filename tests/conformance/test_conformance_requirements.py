"""The list of requirements names tests that exist, and forgets none that is about the same standards.

Whether a test shows what stands beside it, only a reader can tell; that something stands there, these do.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.conformance import ROOT, Requirement, chapters

CHAPTERS = chapters()
REQUIREMENTS = [(file, each) for file, chapter in CHAPTERS.items() for each in chapter.requirement]
NAMES = [f"{file}-{number}" for number, (file, _) in enumerate(REQUIREMENTS)]
FILE = re.compile(r"\d\.\d\d-[a-z0-9-]+\.toml")
SECTION_OF_A_STANDARD = re.compile(r"RFC (\d+)|ASVS (\d+(?:\.\d+)*)|(API\d+)|(draft-[a-z-]+)")

NOT_LISTED: dict[str, str] = {
    # A test and why it stands in no file, although its name begins with a standard that is listed.
}

each_requirement = pytest.mark.parametrize("requirement", [each for _, each in REQUIREMENTS], ids=NAMES)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _names(tree: ast.Module) -> Iterator[str]:
    """The tests of a file, those of a class with the class before them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            inner = [
                each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            yield from (f"{node.name}::{name}" for name in inner if name.startswith("test_"))


def _exists(test: str) -> bool:
    """Whether the file has the test, and the name of its row, when brackets choose one, as a text."""
    path, _, name = test.partition("::")
    name, _, row = name.partition("[")
    file = ROOT / path
    if not file.is_file() or name not in set(_names(_tree(file))):
        return False
    texts = {node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant)}
    return not row or row.removesuffix("]") in texts


def _areas(section: str) -> Iterator[str]:
    """How the names begin of tests that are about the standards in `section`."""
    for rfc, asvs, api, draft in SECTION_OF_A_STANDARD.findall(section):
        if rfc:
            yield f"test_rfc{rfc}_"
        elif asvs:
            yield f"test_asvs_{asvs.replace('.', '_')}_"
        elif api:
            yield f"test_owasp_{api.lower()}_"
        else:
            yield f"test_{draft.replace('-', '_')}"


def test_files_are_named_and_numbered_alike():
    assert CHAPTERS
    assert [name for name in CHAPTERS if not FILE.fullmatch(name)] == []


@each_requirement
def test_requirement_has_tests_or_says_why_it_has_none(requirement: Requirement):
    if requirement.tests:
        assert requirement.not_applicable is None, "either it is tested, or there is a reason why not"
        assert len(set(requirement.tests)) == len(requirement.tests)
    else:
        assert len((requirement.not_applicable or "").split()) > 3, "a reason is a sentence"


@each_requirement
def test_requirement_says_where_it_stands_and_what_the_server_does(requirement: Requirement):
    assert requirement.section
    assert requirement.text.endswith(".")
    assert "\n" not in requirement.section + requirement.text + (requirement.not_applicable or "")


@each_requirement
def test_tests_that_are_listed_exist(requirement: Requirement):
    assert [test for test in requirement.tests if not _exists(test)] == []


def test_every_test_about_these_standards_is_listed():
    areas = {area for _, each in REQUIREMENTS for area in _areas(each.section)}
    listed = {test.partition("[")[0] for _, each in REQUIREMENTS for test in each.tests}
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = {
        f"{path.relative_to(ROOT)}::{name}"
        for path in files
        if "node_modules" not in path.parts
        for name in _names(_tree(path))
        if name.rpartition("::")[2].startswith(tuple(areas))
    }

    assert found - listed - set(NOT_LISTED) == set(), "add them to a file in tests/conformance/requirements"
    assert set(NOT_LISTED) <= found, "what is excused exists"


def test_what_does_not_exist_is_noticed():
    here = "tests/conformance/test_conformance_requirements.py::test_what_does_not_exist_is_noticed"

    assert _exists(here)
    assert _exists(f"{here}[test_rfc7617_]")
    for wrong in (f"{here}_", here.replace("conformance/", "conformance/x"), f"{here}[{len(here)}]", "x::y"):
        assert not _exists(wrong)


def test_areas_are_taken_from_sections():
    section = "RFC 6749, 5.2; RFC 7617, 2; ASVS 4.1.2; OWASP API1:2023"

    assert list(_areas(section)) == ["test_rfc6749_", "test_rfc7617_", "test_asvs_4_1_2_", "test_owasp_api1_"]
