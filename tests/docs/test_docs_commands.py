"""Every `lingpai …` command in a document is one that the program understands."""

import contextlib
import itertools
import re
import shlex

import pytest
from cyclopts.exceptions import MissingArgumentError
from document_parts import ROOT, code_spans, documents, shown_commands, split

from lingpai.cli import app

_CALL = re.compile(r"(?:^|\$\(|\| )lingpai (.+)", re.DOTALL)
_ENDS = {"|", "||", "&", "&&", ";", ")", ">", ">>", "<", "<<"}


def commands_in_blocks(document):
    """Commands that readers copy."""
    _, fences = split(document.read_text(encoding="utf-8"))
    lines = []
    for fence in fences:
        if fence.language == "console":
            lines += [command.text.partition("<<")[0] for command in shown_commands(fence)]
        elif fence.language in {"sh", "text"}:
            lines += [line.strip() for line in fence.lines]
    return [command for line in lines for command in lingpai_commands(line)]


def commands_in_prose(document):
    """Commands that sentences speak of, sometimes by their name alone."""
    prose, _ = split(document.read_text(encoding="utf-8"))
    return [command for span in code_spans(prose) for command in lingpai_commands(span)]


def lingpai_commands(line):
    """The arguments of the program, if a line of shell calls it."""
    call = _CALL.search(line)
    if call is None:
        return []
    lexer = shlex.shlex(call[1], posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    return [list(itertools.takewhile(lambda token: token not in _ENDS, lexer))]


def test_commands_are_found_in_lines_of_shell():
    assert lingpai_commands("lingpai usage --by user,day --csv > usage.csv") == [
        ["usage", "--by", "user,day", "--csv"]
    ]
    assert lingpai_commands("KEY=$(lingpai keys create my-app)") == [["keys", "create", "my-app"]]
    assert lingpai_commands("cat review.txt | lingpai run a/b") == [["run", "a/b"]]
    assert lingpai_commands("Usage: lingpai serve [OPTIONS]") == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_to_copy_are_understood(document):
    for arguments in commands_in_blocks(document):
        command, _, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)

        assert callable(command), arguments


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_sentences_name_exist(document):
    for arguments in commands_in_prose(document):
        with contextlib.suppress(MissingArgumentError):
            app.parse_args(arguments, exit_on_error=False, print_error=False)


def test_the_readme_shows_commands():
    assert len(commands_in_blocks(ROOT / "README.md")) > 3
