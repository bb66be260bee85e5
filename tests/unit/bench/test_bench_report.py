"""Verdicts, ratios and how they are drawn."""

import json
from pathlib import Path

import pytest

from bench.figures import Comparison, Figure, GroupResult, percentile, ratio_of_pairs
from bench.machine import Machine
from bench.report import Document, as_markdown, bar, bound, keep, number

MACHINE = Machine(
    cpu="ACME (R) Turbo 9", cores=2, memory_gb=8, kernel="Linux 6.1", python="CPython 3.11", versions={"wrk": "4"}
)  # fmt: skip


def speed(measured: float) -> Figure:
    return Figure(name="speed", measured=measured, unit="×", must=0.35, goal=0.5, is_higher_better=True)


def cost(measured: float) -> Figure:
    return Figure(name="cost", measured=measured, unit="×", must=1.5, goal=1.2)


def document(*figures: Figure) -> Document:
    comparison = Comparison(title="Speed", unit="calls/s", values={"nginx": 100_000.0, "Lingpai": 40_000.0})
    result = GroupResult(name="calls", figures=figures, comparisons=[comparison], raw={"rounds": [1, 2]})
    return Document(
        machine=MACHINE, results=[result], rounds=3, is_quick=False, load_before=0.1, load_after=0.9
    )


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (speed(0.5), "goal"),
        (speed(0.35), "must"),
        (speed(0.349), "missed"),
        (cost(1.2), "goal"),
        (cost(1.5), "must"),
        (cost(1.51), "missed"),
        (Figure(name="explains", measured=1, unit="s"), ""),
    ],
)
def test_a_figure_is_judged_in_its_direction(figure: Figure, verdict: str) -> None:
    assert figure.verdict == verdict


def test_a_run_holds_unless_a_must_is_missed() -> None:
    assert document(speed(0.4), cost(1.4)).holds
    assert not document(speed(0.4), cost(1.6)).holds


def test_ratio_is_the_median_of_the_pairs_ratios() -> None:
    assert ratio_of_pairs([10, 30, 20], [100, 100, 50]) == 0.3


def test_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([3, 1, 2], 0.99) == 3


def test_bar_has_its_share_of_the_width() -> None:
    assert bar(1, 1, width=4) == "████"
    assert bar(1, 2, width=4) == "██"
    assert bar(1, 32, width=4) == "▏"
    assert bar(0, 1, width=4) == ""
    assert bar(0, 0, width=4) == ""


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.1234, 1.5, 12.34, 20_946.3, 0, 7)] == [
        "0.123", "1.50", "12.3", "20,946", "0", "7",
    ]  # fmt: skip


def test_bounds_show_their_direction() -> None:
    assert bound(0.35, speed(1)) == "≥ 0.35"
    assert bound(1.5, cost(1)) == "≤ 1.5"
    assert bound(0, cost(1)) == "0"
    assert bound(None, cost(1)) == ""


def test_results_are_kept_for_people_and_programs_under_date_and_processor(tmp_path: Path) -> None:
    result = document(speed(0.4))

    name = keep(result, tmp_path / "results")

    stem = f"{result.made_at:%Y-%m-%d}-acme-r-turbo-9"
    assert stem in name
    data = json.loads((tmp_path / "results" / f"{stem}.json").read_text(encoding="utf-8"))
    assert data["holds"] is True
    assert data["figures"][0]["verdict"] == "must"
    assert data["raw"]["calls"] == {"rounds": [1, 2]}
    page = (tmp_path / "results" / f"{stem}.md").read_text(encoding="utf-8")
    assert "| speed | 0.400 × | ≥ 0.35 | ≥ 0.5 | must held |" in page


def test_page_says_what_ran_where_and_how_busy_the_machine_was() -> None:
    page = as_markdown(document(speed(0.4)))

    assert "ACME (R) Turbo 9" in page
    assert "wrk 4" in page
    assert "Load average 0.10 before, 0.90 after." in page
    assert "nginx    ████████████████████████████████████████  100,000 calls/s" in page
