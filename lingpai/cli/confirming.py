"""Asks before something is lost for good."""

import sys

from lingpai.cli.failures import UsageError
from lingpai.terminal import printable


def is_confirmed(what: str, details: str) -> bool:
    """Whether the person at the terminal wants `what` deleted. Raises `UsageError` when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise UsageError(f"Deleting {what} needs --yes when there is no terminal to ask on.")
    question = printable(f"Delete {what} {details}, for good? [y/N] ")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
