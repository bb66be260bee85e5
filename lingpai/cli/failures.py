"""How a command ends when it does not succeed: one sentence on stderr and an exit code that scripts can rely on."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_SIGNED_IN: Final = 3
REFUSED: Final = 4


class CommandError(Exception):
    """Ends the command. The message says what is wrong and what to do next."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(CommandError):
    """The command line cannot be understood; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=USAGE)
