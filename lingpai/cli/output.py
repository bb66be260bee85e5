"""Data on stdout: JSON, CSV, lines and what cells of tables look like. Words on stderr are in `lingpai.terminal`.

Everything that a server, a colleague or a model wrote goes through `printable` before a terminal sees it, because
control characters there could rewrite the screen.
"""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from lingpai.terminal import printable

Cell = str | int | float | Text | None

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_MARKS: Final = {
    "ok": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "warning": ("!", "bold yellow"),
    "skipped": ("–", "dim"),
}
UNFOLDED: Final = 10_000  # width of a table that no terminal folds


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


def console_for(stream: TextIO, *, width: int | None = None) -> Console:
    """A console that adds nothing of its own; NO_COLOR and `TERM=dumb` are respected by rich."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") in {"utf8", "utf16", "gb18030"}
