"""A short run of the fuzzer in every test run; `make fuzz` runs it for ten minutes."""

from pathlib import Path

from tests.fuzz.__main__ import fuzz


def test_short_run_with_a_fixed_seed(tmp_path: Path):
    """The same rounds every time, so that what once passed keeps passing."""
    rounds = fuzz(tmp_path, seed=20261120, seconds=10)

    assert rounds > 20


def test_short_run_with_a_new_seed(tmp_path: Path):
    """Other rounds every time; the seed is printed with a failure."""
    rounds = fuzz(tmp_path, seed=None, seconds=10)

    assert rounds > 20
