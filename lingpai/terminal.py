"""Words for the person at the terminal, on stderr, and standard streams that take any text.

For commands and the server alike, so nothing is imported here that a server should not keep in memory.
"""

import io
import os
import re
import sys
from typing import Final, TextIO

BOLD: Final = "1"
DIM: Final = "2"
_BOLD_RED: Final = "1;31"

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)  # controls and bidi overrides


def prepare_streams() -> None:
    """A character that the terminal's encoding lacks becomes `?`; input that is not text is refused, not passed on."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if isinstance(stream, io.TextIOWrapper):  # a stand-in is left alone
            stream.reconfigure(errors=errors)


def say(message: str) -> None:
    """Words for a person, on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def say_error(message: str) -> None:
    """Why the command failed, on stderr."""
    print(styled("error: ", _BOLD_RED, sys.stderr) + printable(message), file=sys.stderr, flush=True)


def styled(text: str, style: str, stream: TextIO) -> str:
    """`text` in a style (BOLD, DIM: parameters of ECMA-48's SGR) where `stream` shows styles, else as it is."""
    return f"\x1b[{style}m{text}\x1b[0m" if _shows_styles(stream) else text


def _shows_styles(stream: TextIO) -> bool:
    surroundings = os.environ.get
    if surroundings("NO_COLOR") or surroundings("TERM", "").lower() in ("dumb", "unknown"):
        return False
    return bool(surroundings("FORCE_COLOR")) or stream.isatty()


def printable(text: str) -> str:
    """`text` with control characters spelled out as hex, so that it cannot steer the terminal."""
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def silence_stdout() -> None:
    """After the reader left (`| head`): keep the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain_missing_package(error: ImportError) -> str:
    """What to install when a command needs more than plain `lingpai`. Raises `error` again when that is not why."""
    missing: BaseException | None = error
    while missing is not None and not isinstance(missing, ModuleNotFoundError):
        missing = missing.__cause__
    if missing is None or not missing.name or missing.name.partition(".")[0] == "lingpai":
        raise error
    return (
        f"This command needs the server's packages ({missing.name} is missing): pip install 'lingpai[server]'"
    )
