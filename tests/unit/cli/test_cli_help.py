"""Help pages as a terminal of 80 columns shows them."""

import subprocess
import sys

import pytest

PAGES = [
    (), ("serve",), ("keys",), ("keys", "create"), ("keys", "list"), ("keys", "delete"), ("clients",),
    ("clients", "create"), ("clients", "list"), ("clients", "update"), ("clients", "rotate"), ("clients", "delete"), ("clients", "require-signature"), ("clients", "signing-keys"), ("clients", "signing-keys", "create"), ("tokens",), ("tokens", "list"), ("tokens", "revoke"), ("keys", "require-signature"),
    ("keys", "signing-keys"), ("keys", "signing-keys", "create"), ("keys", "signing-keys", "list"), ("users",),
    ("users", "create"), ("models",), ("models", "add"), ("models", "check"), ("limits",), ("limits", "set"),
    ("limits", "list"), ("limits", "explain"), ("usage",), ("usage", "rebuild"), ("requests",), ("requests", "list"),
    ("requests", "export"), ("projects",), ("projects", "create"), ("events",), ("events", "list"), ("secrets",), ("secrets", "list"),
    ("secrets", "rotate"), ("secrets", "retire"), ("models", "targets"), ("models", "key"), ("run",), ("chat",), ("doctor",),
]  # fmt: skip

ON_A_TERMINAL = """
import sys
sys.stdout.isatty = lambda: True
from lingpai.cli import main
main()
"""


def help_page(page, environment):
    return subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL, *page, "--help"],
        env={**environment, "TERM": "xterm", "NO_COLOR": "1"}, capture_output=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_every_example_stays_on_its_line(page, surroundings):
    """An example that is folded cannot be copied."""
    wide = help_page(page, surroundings | {"COLUMNS": "200"})
    narrow = help_page(page, surroundings | {"COLUMNS": "80"})

    examples = [line.strip() for line in wide.partition("Examples:")[2].splitlines() if line.strip()]
    lines = [line.strip() for line in narrow.partition("Examples:")[2].splitlines() if line.strip()]
    assert examples
    assert lines == examples
