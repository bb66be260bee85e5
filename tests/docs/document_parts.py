"""Takes Markdown documents apart: fenced blocks, the commands in them, links, headings, code spans."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_FENCE = re.compile(r"^```(\w*)$")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")


@dataclass
class Fence:
    """A fenced block."""

    language: str
    lines: list[str] = field(default_factory=list)


@dataclass
class ShownCommand:
    """A command of a ``console`` block, and what the document says it prints."""

    text: str
    output: list[str] = field(default_factory=list)


def documents():
    """Every document of the repository."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def split(text):
    """The prose without its fenced blocks, and the blocks."""
    prose, fences, current = [], [], None
    for line in text.splitlines():
        match = _FENCE.match(line)
        if match and current is None:
            current = Fence(match[1])
        elif line == "```":
            fences.append(current)
            current = None
        elif current is None:
            prose.append(line)
        else:
            current.lines.append(line)
    assert current is None, "a fenced block has no end"
    return "\n".join(prose), fences


def shown_commands(fence):
    """The commands of a ``console`` block with their output. `\\` and here-documents continue a command."""
    commands = []
    lines = iter(fence.lines)
    for line in lines:
        if line.startswith("$ "):
            commands.append(ShownCommand(_whole_command(line[2:], lines)))
        else:
            assert commands, f"output before the first command: {line}"
            commands[-1].output.append(line)
    return commands


def _whole_command(line, lines):
    text = line
    heredoc = _HEREDOC.search(line)
    if heredoc:
        for following in lines:
            text += f"\n{following}"
            if following == heredoc[1]:
                return text
        raise AssertionError(f"the here-document of `{line}` has no end")
    while text.endswith("\\"):
        text += f"\n{next(lines)}"
    return text


def headings(prose):
    """The anchors that headings get on code hosts."""
    found = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def links(prose):
    """Targets of links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def code_spans(prose):
    """What stands between single backquotes."""
    return re.findall(r"`([^`\n]+)`", prose)
