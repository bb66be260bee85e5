"""New seeds for tests that play at random, and, after the last test, a scan for secrets (tests/secrets_scan.py)."""

import os
import secrets

import pytest

from tests.secrets_scan import SCAN, Outcome

_OUTCOME = pytest.StashKey[Outcome]()
_MISSING = pytest.StashKey[tuple[str, ...]]()
_LEFT_OUT = pytest.StashKey[bool]()
_SEEDS = pytest.StashKey[dict[str, int]]()


@pytest.fixture
def new_seed(request: pytest.FixtureRequest) -> int:
    """Another seed in every run, or the one in LINGPAI_SEED. The end of the run shows it, however the test ends."""
    seed = int(os.environ.get("LINGPAI_SEED") or secrets.randbits(32))
    request.config.stash.setdefault(_SEEDS, {})[request.node.nodeid] = seed
    return seed


@pytest.fixture(scope="session", autouse=True)
def _scanned_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All of `tmp_path` is read at the end."""
    SCAN.watch(tmp_path_factory.getbasetemp())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what a test logged; its last report has all of it."""
    if report.when == "teardown":
        for name, text in report.sections:
            if "log" in name or "stderr" in name:
                SCAN.note(f"{report.nodeid} ({name})", text)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items[:1]:
        item.config.stash[_LEFT_OUT] = True


@pytest.hookimpl(trylast=True)  # after the runner has closed the session's fixtures
def pytest_sessionfinish(session: pytest.Session) -> None:
    outcome = SCAN.run()
    missing = outcome.missing if _is_whole(session) else ()
    session.config.stash[_OUTCOME] = outcome
    session.config.stash[_MISSING] = missing
    passed = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if passed and (outcome.findings or missing):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_whole(session: pytest.Session) -> bool:
    """Whether all tests were run: none was named, left out, or not reached any more."""
    config = session.config
    is_narrowed = config.args != config.getini("testpaths") or any(
        config.getoption(name) for name in ("collectonly", "ignore", "ignore_glob")
    )
    is_cut_short = (
        session.shouldstop or session.shouldfail or session.exitstatus == pytest.ExitCode.INTERRUPTED
    )
    return not (is_narrowed or is_cut_short or config.stash.get(_LEFT_OUT, False))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    _show_seeds(terminalreporter, config.stash.get(_SEEDS, {}))
    if (outcome := config.stash.get(_OUTCOME, None)) is not None:
        if missing := config.stash.get(_MISSING, ()):
            terminalreporter.line(
                f"The scan for secrets had nothing to read of: {', '.join(missing)}.", red=True
            )
        _show_outcome(terminalreporter, config, outcome)


def _show_seeds(terminalreporter: pytest.TerminalReporter, seeds: dict[str, int]) -> None:
    if seeds:
        terminalreporter.section("new seeds")
    for test, seed in seeds.items():
        terminalreporter.line(f"LINGPAI_SEED={seed} {test}")


def _show_outcome(terminalreporter: pytest.TerminalReporter, config: pytest.Config, outcome: Outcome) -> None:
    if not outcome.findings:
        if config.get_verbosity() >= 0 and outcome.files:
            terminalreporter.line(outcome.summary)
        return
    terminalreporter.section("secrets where they must not be", red=True, bold=True)
    for line in outcome.report:
        terminalreporter.line(line, red=True)
    terminalreporter.line("What may be where, and why, is at the top of tests/secrets_scan.py.")
