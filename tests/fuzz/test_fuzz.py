"""A short run of the fuzzer in every test run; `make fuzz` runs it for ten minutes."""

from pathlib import Path

from tests.fuzz.__main__ import fuzz
from tests.fuzz.stage import Stage


def check_that_something_happened(stage: Stage) -> None:
    """A run in which all was refused would show nothing."""
    assert stage.rounds > 20
    assert stage.seen["upstream"] > stage.rounds / 10, stage.seen
    assert min(stage.seen[what] for what in ("answered", "left early")) > 2, stage.seen


def test_short_run_with_a_fixed_seed(tmp_path: Path):
    """The same rounds every time, so that what once passed keeps passing."""
    check_that_something_happened(fuzz(tmp_path, seed=20261120, seconds=12))


def test_short_run_with_a_new_seed(tmp_path: Path, new_seed: int):
    """Other rounds every time; the seed is shown at the end of the run."""
    check_that_something_happened(fuzz(tmp_path, seed=new_seed, seconds=12))
