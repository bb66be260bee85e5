"""After the last test: a scan for secrets in everything that the tests left behind (tests/secrets_scan.py)."""

import pytest

from tests.secrets_scan import SCAN, Outcome

_OUTCOME = pytest.StashKey[Outcome]()


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


@pytest.hookimpl(trylast=True)  # after the runner has closed the session's fixtures
def pytest_sessionfinish(session: pytest.Session) -> None:
    outcome = SCAN.run()
    session.config.stash[_OUTCOME] = outcome
    if outcome.findings and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    outcome = config.stash.get(_OUTCOME, None)
    if outcome is None:
        return
    if not outcome.findings:
        if config.get_verbosity() >= 0 and outcome.files:
            terminalreporter.line(outcome.summary)
        return
    terminalreporter.section("secrets where they must not be", red=True, bold=True)
    for line in outcome.report:
        terminalreporter.line(line, red=True)
    terminalreporter.line("What may be where, and why, is at the top of tests/secrets_scan.py.")
