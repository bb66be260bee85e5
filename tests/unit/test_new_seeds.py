"""Seeds of tests that play at random: new in every run, shown at its end, and chosen by who wants to repeat one."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = "def test_it(new_seed):\n    pass\n"


def run_session(place: Path, **environment: str) -> str:
    """What a pytest session with the suite's conftest shows of a test that passes."""
    (place / "test_it.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", str(place), "--basetemp", str(place / "tmp"), str(place / "test_it.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LINGPAI_SEED": "", **environment},
        cwd=place, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_every_run_has_another_seed_and_shows_it(tmp_path: Path):
    shown = [
        re.findall(r"^LINGPAI_SEED=(\d+) test_it.py::test_it$", run_session(tmp_path), re.MULTILINE)
        for _ in "ab"
    ]

    assert [len(seeds) for seeds in shown] == [1, 1]
    assert shown[0] != shown[1]


def test_a_seed_can_be_chosen(tmp_path: Path):
    assert "LINGPAI_SEED=4711 test_it.py::test_it\n" in run_session(tmp_path, LINGPAI_SEED="4711")
