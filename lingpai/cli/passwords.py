"""Passwords as commands read them: from standard input or without echo, never from the arguments, which `ps` shows."""

import getpass
import sys
from typing import Annotated

from cyclopts import Parameter

from lingpai.cli.failures import CommandError, UsageError

PasswordStdin = Annotated[
    bool,
    Parameter(
        name="--password-stdin",
        negative=(),
        help="Read the password from standard input (its first line), on the server's own machine.",
    ),
]


def read_password(*, from_stdin: bool) -> str:
    """The new password. Raises `UsageError` when there is nobody to ask, `CommandError` when two entries differ."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise UsageError("Standard input is empty; --password-stdin reads the password there.")
        return password
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask on. Pass the password with --password-stdin.")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("The two passwords differ. Nothing was changed.")
    return password
