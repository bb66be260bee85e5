"""Rows of Markdown tables."""

from collections.abc import Sequence


def row(cells: Sequence[str]) -> str:
    """One row, whose cells may have vertical bars in them."""
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"
