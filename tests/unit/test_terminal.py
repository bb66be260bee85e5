"""Words for the person at the terminal, and whether they are coloured."""

import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from lingpai.terminal import BOLD, explain_missing_package, printable, say_error, styled


@pytest.fixture
def terminal(monkeypatch) -> Iterator[TextIO]:
    """The program's end of a real terminal, in surroundings that say nothing about colours."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    theirs, ours = os.openpty()
    with os.fdopen(ours, "w") as stream:
        yield stream
    os.close(theirs)


def test_a_terminal_is_shown_styles(terminal):
    assert styled("Lingpai", BOLD, terminal) == "\x1b[1mLingpai\x1b[0m"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "unknown")])
def test_a_terminal_that_wants_no_styles_gets_none(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert styled("Lingpai", BOLD, terminal) == "Lingpai"


@pytest.mark.parametrize(("wish", "shown"), [("", "Lingpai"), ("1", "\x1b[1mLingpai\x1b[0m")])
def test_a_file_gets_styles_only_when_asked_for(terminal, tmp_path, monkeypatch, wish, shown):
    """FORCE_COLOR, as continuous integration sets it whose logs show colours."""
    monkeypatch.setenv("FORCE_COLOR", wish)
    with (tmp_path / "out").open("w") as file:
        assert styled("Lingpai", BOLD, file) == shown


def test_an_error_cannot_steer_the_terminal(capsys):
    say_error("no model \x1b[2J")

    assert capsys.readouterr().err == "error: no model \\x1b[2J\n"


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


def test_a_missing_server_package_says_what_to_install():
    error = ImportError("Cannot import module")
    error.__cause__ = ModuleNotFoundError("No module", name="uvicorn.config")

    assert "pip install 'lingpai[server]'" in explain_missing_package(error)


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package():
    error = ImportError("Cannot import module")
    error.__cause__ = ModuleNotFoundError("No module", name="lingpai.cli.nowhere")

    with pytest.raises(ImportError):
        explain_missing_package(error)
