"""Data on stdout, words on stderr: JSON, CSV, lines and what cells of tables look like.

Everything that a server, a colleague or a model wrote goes through `printable` before a terminal sees it, because
control characters there could rewrite the screen.
"""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

Cell = str | int | float | Text | None

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)  # controls and bidi overrides
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_MARKS: Final = {
    "ok": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "warning": ("!", "bold yellow"),
    "skipped": ("–", "dim"),
}
UNFOLDED: Final = 10_000  # width of a table that no terminal folds


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
    console = console_for(sys.stderr)
    console.print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=not _is_unicode(sys.stdout)))


def print_line(text: str) -> None:
    """One line of data on stdout, for a person when stdout is a terminal."""
    print(printable(text) if sys.stdout.isatty() else text)


def print_csv(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """RFC 4180 on stdout. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(headers)
    writer.writerows([csv_cell(value) for value in row] for row in rows)


def csv_cell(value: Any) -> Any:
    """`value` as it may stand in a CSV file that somebody opens in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def as_text(cell: Cell) -> Text:
    """A cell as it is shown: nothing as `–`, numbers with thousands separated, never markup."""
    if isinstance(cell, Text):
        return cell
    if cell is None or cell == "":
        return Text("–", style="dim")
    if isinstance(cell, float):
        return Text(f"{cell:,.4f}".rstrip("0").rstrip("."))
    return Text(f"{cell:,}" if isinstance(cell, int) else printable(cell))


def listing(values: Iterable[str], *, empty: str = "") -> str:
    """Several values in one cell."""
    return ", ".join(values) or empty


def bar(share: float, *, width: int = 20) -> Text:
    """A horizontal bar, `share` (0 to 1) of `width` characters long, drawn in eighths where the encoding has them."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if not _is_unicode(sys.stdout):
        return Text("#" * (eighths // 8))
    full, rest = divmod(eighths, 8)
    return Text("█" * full + _EIGHTHS[rest].strip(), style="cyan")


def mark(state: str) -> Text:
    """The sign of a step's state: ok, failed, warning, skipped."""
    sign, style = _MARKS[state]
    return Text(sign if _is_unicode(sys.stdout) else state.upper(), style=style)


def print_text(text: Text) -> None:
    """One coloured line of data on stdout, never folded; colours only on a terminal."""
    console_for(sys.stdout).print(text, soft_wrap=True)


def printable(text: str) -> str:
    """`text` with control characters spelled out as hex, so that it cannot steer the terminal."""
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def console_for(stream: TextIO, *, width: int | None = None) -> Console:
    """A console that adds nothing of its own; NO_COLOR and `TERM=dumb` are respected by rich."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def silence_stdout() -> None:
    """After the reader left (`| head`): keep the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") in {"utf8", "utf16", "gb18030"}
