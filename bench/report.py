"""Results for people (bars and a table, in the terminal and as Markdown) and for programs (JSON)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.figures import Comparison, Figure, GroupResult
from bench.machine import Machine

BAR_WIDTH: Final = 40
FILE_WIDTH: Final = 120
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_COLORS: Final = {"goal": "green", "must": "yellow", "missed": "bold red", "": "dim"}
_WORDS: Final = {"goal": "goal reached", "must": "must held", "missed": "MISSED", "": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One run's results and the circumstances they came about in."""

    machine: Machine
    results: Sequence[GroupResult]
    rounds: int
    is_quick: bool
    load_before: float
    load_after: float
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def figures(self) -> list[Figure]:
        return [figure for result in self.results for figure in result.figures]

    @property
    def comparisons(self) -> list[Comparison]:
        return [comparison for result in self.results for comparison in result.comparisons]

    @property
    def notes(self) -> list[str]:
        machine_was = f"Load average {self.load_before:.2f} before, {self.load_after:.2f} after."
        if self.load_before > 0.5:
            machine_was += " The machine had other work, so the figures are rougher than on a quiet one."
        return [machine_was, *(note for result in self.results for note in result.notes)]

    @property
    def holds(self) -> bool:
        """Whether no must is missed."""
        return all(figure.verdict != "missed" for figure in self.figures)


def bar(value: float, largest: float, *, width: int = BAR_WIDTH) -> str:
    """A bar whose length is `value`'s share of `largest`, to an eighth of a character."""
    eighths = round(width * 8 * value / largest) if largest > 0 else 0
    whole, rest = divmod(max(0, min(eighths, width * 8)), 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def number(value: float) -> str:
    """Three significant digits, as people write them."""
    if value == int(value) and abs(value) < 100:
        return str(int(value))
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def bound(value: float | None, figure: Figure) -> str:
    """A must or a goal, with the direction it limits."""
    if value is None:
        return ""
    if value == 0 and not figure.is_higher_better:
        return "0"
    return f"{'≥' if figure.is_higher_better else '≤'} {value:g}"


# -- terminal


def show(document: Document) -> None:
    """Print charts, then the table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    for comparison in document.comparisons:
        console.print(f"\n[bold]{comparison.title}[/bold]")
        for line in _bar_lines(comparison):
            console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print()
    console.print(_table(document.figures))
    for note in document.notes:
        console.print(f"[dim]{note}[/dim]")


def _bar_lines(comparison: Comparison) -> list[str]:
    largest = max(comparison.values.values())
    widest = max(map(len, comparison.values))
    return [
        f"{name:<{widest}}  {bar(value, largest):<{BAR_WIDTH}}  {number(value)} {comparison.unit}"
        for name, value in comparison.values.items()
    ]


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("measured", "must", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for figure in figures:
        color = _COLORS[figure.verdict]
        table.add_row(
            f"{figure.name}\n[dim]{figure.detail}[/dim]" if figure.detail else figure.name,
            f"[{color}]{number(figure.measured)} {figure.unit}[/{color}]",
            bound(figure.must, figure),
            bound(figure.goal, figure),
            f"[{color}]{_WORDS[figure.verdict]}[/{color}]",
        )
    return table


# -- files


def keep(document: Document, folder: Path) -> str:
    """Write `<date>-<processor>.json` and `.md`, replacing what an earlier run of the day left. Their common name."""
    name = f"{document.made_at:%Y-%m-%d}-{document.machine.slug}"
    folder.mkdir(exist_ok=True)
    data = json.dumps(as_json(document), indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(data + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(as_markdown(document), encoding="utf-8")
    return f"{folder.parent.name}/{folder.name}/{name}.md and .json"


def as_json(document: Document) -> dict[str, Any]:
    """Everything, with the raw rounds."""
    return {
        "format": 1,
        "made_at": f"{document.made_at:%Y-%m-%dT%H:%M:%SZ}",
        "machine": asdict(document.machine),
        "load_average": {"before": document.load_before, "after": document.load_after},
        "rounds": document.rounds,
        "holds": document.holds,
        "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in document.figures],
        "notes": document.notes,
        "raw": {result.name: result.raw for result in document.results},
    }


def as_markdown(document: Document) -> str:
    """The page that people read."""
    machine = document.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines = [
        f"# Bench, {document.made_at:%Y-%m-%d}, {machine.cpu}",
        "",
        f"{machine.cores} cores, {machine.memory_gb:g} GB, {machine.kernel}, {machine.python}; {versions}.",
        f"Medians of {document.rounds} rounds, contestants in turn; the server on one core, load and upstream on another.",
        "How to read it: [../README.md](../README.md).",
    ]
    for comparison in document.comparisons:
        lines += ["", f"**{comparison.title}**", "", "```", *_bar_lines(comparison), "```"]
    lines += ["", "| figure | measured | must | goal | |", "|---|---:|---:|---:|---|"]
    lines += [_markdown_row(figure) for figure in document.figures]
    lines += ["", *(f"- {note}" for note in document.notes), ""]
    return "\n".join(lines)


def _markdown_row(figure: Figure) -> str:
    name = f"{figure.name}<br><sub>{figure.detail}</sub>" if figure.detail else figure.name
    cells = [
        name,
        f"{number(figure.measured)} {figure.unit}",
        bound(figure.must, figure),
        bound(figure.goal, figure),
        _WORDS[figure.verdict],
    ]
    return f"| {' | '.join(cells)} |"
