"""Tables on stdout. What people copy (names, ids, models, limits) is never folded.

A table that is too wide for the terminal becomes narrower step by step, as its command says (`drop`, `rename`, …);
when that is not enough, its lines run over the edge. Without a terminal every table is printed whole.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from rich.table import Table
from rich.text import Text

from lingpai.cli.output import UNFOLDED, Cell, as_text, console_for

Columns = dict[str, list[Text]]  # by header, from left to right
Step = Callable[[Columns], Columns]

GAP: Final = 2  # between two columns
_NOTHING: Final = {"", "0", "–"}
LEAST_PROSE: Final = 24  # narrower than this, sentences are hard to read


def drop(*headers: str) -> Step:
    """Leave columns out."""
    return lambda columns: {header: cells for header, cells in columns.items() if header not in headers}


def drop_empty(*headers: str) -> Step:
    """Leave those of the columns out that say nothing: zeros and missing values only."""

    def step(columns: Columns) -> Columns:
        return {
            header: cells
            for header, cells in columns.items()
            if header not in headers or not all(cell.plain.strip() in _NOTHING for cell in cells)
        }

    return step


def rename(shorter: Mapping[str, str]) -> Step:
    """Put shorter headers over columns."""
    return lambda columns: {shorter.get(header, header): cells for header, cells in columns.items()}


def swap(header: str, cells: Iterable[Cell]) -> Step:
    """Show a column in fewer words."""
    shorter = [as_text(cell) for cell in cells]
    return lambda columns: {name: shorter if name == header else old for name, old in columns.items()}


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    right: Iterable[str] = (),
    narrower: Sequence[Step] = (),
    prose: str | None = None,
) -> None:
    """A table on stdout; columns named in `right` hold numbers.

    On a terminal the steps `narrower` are taken in turn until the table fits; then the sentences of the column `prose`
    (the last one) are folded.
    """
    lines = [[as_text(cell) for cell in row] for row in rows]
    width = _terminal_width()
    whole = {header: [line[place] for line in lines] for place, header in enumerate(headers)}
    columns = fit(whole, narrower, width=width)
    numeric = set(right)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in columns:
        justify: Literal["left", "right"] = "right" if header in numeric else "left"
        if header == prose:
            table.add_column(header, overflow="fold", max_width=_room_for(header, columns, width=width))
        else:
            table.add_column(header, justify=justify, no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    _print_block(table)


def print_details(fields: Mapping[str, Cell]) -> None:
    """One thing's fields on stdout, a line each; long values go on in the next line, between words only."""
    values = {name: as_text(value) for name, value in fields.items()}
    room = _terminal_width() - max(map(len, values)) - GAP
    longest_word = max(
        (Text(word).cell_len for value in values.values() for word in value.plain.split()), default=1
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(max_width=max(room, longest_word))
    for name, value in values.items():
        table.add_row(name, value)
    _print_block(table)


def fit(columns: Columns, narrower: Sequence[Step], *, width: int) -> Columns:
    """`columns` after as many of the steps as it takes to fit into `width` characters."""
    for step in narrower:
        if width_of(columns) <= width:
            break
        columns = step(columns)
    return columns


def width_of(columns: Columns) -> int:
    """How many characters the longest line of the table takes."""
    widths = [_column_width(header, cells) for header, cells in columns.items()]
    return sum(widths) + GAP * (len(widths) - 1)


def _column_width(header: str, cells: Iterable[Text]) -> int:
    return max(
        Text(header).cell_len, *(Text(line).cell_len for cell in cells for line in cell.plain.split("\n")), 0
    )


def _room_for(header: str, columns: Columns, *, width: int) -> int:
    others = {name: cells for name, cells in columns.items() if name != header}
    return max(LEAST_PROSE, width - width_of(others) - GAP)


def _terminal_width() -> int:
    return console_for(sys.stdout).width if sys.stdout.isatty() else UNFOLDED


def _print_block(table: Table) -> None:
    console = console_for(sys.stdout, width=UNFOLDED)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
