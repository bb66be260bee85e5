"""Secrets that a person or a script hands to a command: by stdin, never as an argument, which `ps` would show."""

import getpass
import sys

from lingpai.cli.failures import UsageError

LONGEST = 8192


def read_secret(what: str) -> str:
    """A secret from stdin: typed unseen at a terminal, else all of what is piped in. Raises UsageError without one."""
    if sys.stdin.isatty():
        secret = getpass.getpass(f"{what}: ").strip()
    else:
        try:
            secret = sys.stdin.read(LONGEST).strip()
        except UnicodeDecodeError:
            # `from None`: the exception would show what was piped in
            raise UsageError(f"The {what} on stdin is not text.") from None
    if not secret:
        raise UsageError(f"There is no {what} on stdin. Pipe it in, for example from your password manager.")
    return secret
