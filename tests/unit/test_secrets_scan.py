"""The scan after the tests can fail: what is planted is found, in every kind of place and form, and is not repeated."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from lingpai.ids import mint_credential
from tests.secrets_scan import SecretsScan

ROOT = Path(__file__).parents[2]
PASSWORD = 'päss word/"4711"+?'
PROMPT = 'Tell of the "Kanarienvogel" & its 羽毛'
PROVIDER_KEY = "sk-provider-5bd1e995"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(bytes(range(200, 232))).decode()
PEPPER = bytes(range(100, 132))
FIRST_START = "Your first API key, shown only now. Store it.\n\n  export LINGPAI_API_KEY={}\n\nTry it\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder outside `tmp_path`, which the session's own scan reads."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def scan(place: Path) -> SecretsScan:
    """A scan of `place` that knows a secret of every kind but our credentials, which need no telling."""
    scan = SecretsScan()
    scan.watch(place)
    scan.secrets.add("password", PASSWORD)
    scan.secrets.add("prompt", PROMPT)
    scan.secrets.add_environment({"PROVIDER_KEY": PROVIDER_KEY, "HOOK_SECRET": WEBHOOK_SECRET})
    return scan


def kinds(scan: SecretsScan) -> set[str]:
    return {finding.kind for finding in scan.run().findings}


# -- places


def in_text(path: Path, secret: str) -> None:
    path.write_text(f"2026-11-20 08:00:00 INFO lingpai.calls  {secret} 200\n", encoding="utf-8")


def in_journal(path: Path, secret: str) -> None:
    frame = msgspec.msgpack.encode(["req_1", secret, 5])
    path.write_bytes(b"LPJ1\0\0\0\0" + len(frame).to_bytes(4, "little") + b"\xde\xad\xbe\xef" + frame)


def in_database(path: Path, secret: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE usage_records (id INTEGER PRIMARY KEY, model TEXT)")
    connection.execute("INSERT INTO usage_records (model) VALUES (?)", (secret,))
    connection.commit()
    connection.close()


def in_write_ahead_log(path: Path, secret: str) -> None:
    """As a server that is killed leaves it: the row is in the log alone."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/db")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE events (message TEXT)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO events VALUES (?)", (secret,))
        connection.commit()
        path.write_bytes(Path(folder, "db-wal").read_bytes())
        connection.close()


def in_metrics(path: Path, secret: str) -> None:
    label = secret.replace("\\", "\\\\").replace('"', '\\"')
    path.write_text(f'# TYPE x counter\nx_total{{key="{label}"}} 1.0\n', encoding="utf-8")


def in_json_lines(path: Path, secret: str) -> None:
    path.write_text(f"{json.dumps({'id': 'req_1', 'note': f'({secret})'})}\n")


PLACES: dict[str, Callable[[Path, str], None]] = {
    "stderr.txt": in_text,
    "000000000001.journal": in_journal,
    "lingpai.db": in_database,
    "lingpai.db-wal": in_write_ahead_log,
    "metrics.txt": in_metrics,
    "requests.jsonl": in_json_lines,
    "usage.csv": in_text,
}


@pytest.mark.parametrize("name", PLACES)
def test_key_in_a_file_is_found_though_nobody_told_of_it(scan: SecretsScan, place: Path, name: str):
    PLACES[name](place / name, mint_credential("sk-lp-").token)

    assert kinds(scan) == {"key or token"}


@pytest.mark.parametrize("name", [name for name in PLACES if name != "metrics.txt"])
@pytest.mark.parametrize(
    ("kind", "secret"),
    [("prompt", PROMPT), ("password", PASSWORD), ("provider key or password", PROVIDER_KEY)],
)
def test_told_secret_in_a_file_is_found(scan: SecretsScan, place: Path, name: str, kind: str, secret: str):
    PLACES[name](place / name, secret)

    assert kinds(scan) == {kind}


def test_provider_key_in_metrics_is_found(scan: SecretsScan, place: Path):
    in_metrics(place / "metrics.txt", PROVIDER_KEY)

    assert kinds(scan) == {"provider key or password"}


def test_secret_in_a_text_is_found_and_its_place_named(scan: SecretsScan):
    scan.note("answer 401", f'{{"error": {{"message": "no key {PROVIDER_KEY}"}}}}')

    (finding,) = scan.run().findings

    assert str(finding) == "answer 401, byte 30: provider key or password"


def test_secret_across_two_blocks_is_found_once(scan: SecretsScan, place: Path):
    """Files are read in blocks."""
    at = (8 << 20) - 7
    with (place / "stderr.txt").open("wb") as file:
        file.seek(at)
        file.write(mint_credential("rt-lp-").token.encode())

    assert [finding.offset for finding in scan.run().findings] == [at]


# -- kinds and forms


@pytest.mark.parametrize("prefix", ["sk-lp-", "at-lp-", "rt-lp-", "cs-lp-"])
def test_every_credential_is_known_by_its_checksum(scan: SecretsScan, prefix: str):
    scan.note("log", f"x{mint_credential(prefix).token}x")  # type: ignore[arg-type]

    assert kinds(scan) == {"key or token"}


def test_what_only_looks_like_a_key_is_none(scan: SecretsScan):
    scan.note("documentation", f"sk-lp-{'x' * 61} sk-lp-[hidden] sk-lp-…1234")

    assert kinds(scan) == set()


@pytest.mark.parametrize("half", [slice(18, 39), slice(39, 61)])
def test_half_of_a_known_key_is_found(scan: SecretsScan, half: slice):
    token = mint_credential("sk-lp-").token
    scan.secrets.add_credentials(f"made: {token}")
    scan.note("log", f"key {token[half]}…")

    assert kinds(scan) == {"part of a key or token"}


def test_public_parts_of_a_key_are_no_secret(scan: SecretsScan):
    minted = mint_credential("sk-lp-")
    scan.secrets.add_credentials(minted.token)
    scan.note("list", f"{minted.id} {minted.hint}")

    assert kinds(scan) == set()


@pytest.mark.parametrize("before", ["", "a", "ab", "admin:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_seen_through(scan: SecretsScan, before: str, encode: Callable[[bytes], bytes]):
    """As in the header of Basic authentication, wherever in the groups of three the secret begins."""
    scan.note("log", b"Basic " + encode(f"{before}{PASSWORD}\n".encode()))

    assert kinds(scan) == {"password"}


def test_base64_of_a_known_key_is_seen_through(scan: SecretsScan):
    token = mint_credential("cs-lp-").token
    scan.secrets.add_credentials(token)
    scan.note("log", base64.b64encode(f"client:{token}".encode()))

    assert kinds(scan) == {"part of a key or token"}


@pytest.mark.parametrize("encode", [quote, quote_plus, lambda text: quote(text, safe=""), json.dumps])
def test_urls_and_json_are_seen_through(scan: SecretsScan, encode: Callable[[str], str]):
    scan.note("log", f"GET /?q={encode(PROMPT)}")

    assert kinds(scan) == {"prompt"}


@pytest.mark.parametrize("text", [WEBHOOK_SECRET, WEBHOOK_SECRET.removeprefix("whsec_").rstrip("=")])
def test_webhook_secret_is_found_with_and_without_its_prefix(scan: SecretsScan, text: str):
    scan.note("event", f"signed with {text}")

    assert "webhook secret" in kinds(scan)


@pytest.mark.parametrize("content", [PEPPER, PEPPER.hex().encode(), base64.b64encode(PEPPER)])
def test_pepper_is_found_outside_its_own_file(scan: SecretsScan, place: Path, content: bytes):
    own = place / "data" / "secrets" / "pepper.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"peppers": {"1": PEPPER.hex()}}))
    (place / "data" / "lingpai.db").write_bytes(b"SQLite" + content)

    findings = scan.run().findings

    assert {(Path(each.place).name, each.kind) for each in findings} == {("lingpai.db", "pepper")}


def test_words_with_canary_in_a_request_are_prompts(scan: SecretsScan):
    scan.secrets.add_prompts(b'{"messages": [{"content": "Hello, prompt-canary-4711!"}]}')
    scan.note("log", "said prompt-canary-4711")

    assert kinds(scan) == {"prompt"}


def test_short_texts_are_not_looked_for(scan: SecretsScan):
    scan.secrets.add("password", "pw")
    scan.note("log", "pw pw pw")

    assert kinds(scan) == set()


# -- what may be there


def test_the_first_key_may_be_shown_once(scan: SecretsScan, place: Path):
    token = mint_credential("sk-lp-").token
    scan.secrets.add_credentials(token)
    (place / "stdout.txt").write_text(FIRST_START.format(token))

    assert kinds(scan) == set()


@pytest.mark.parametrize("again", ["{}", FIRST_START])
def test_a_key_that_is_shown_twice_is_found(scan: SecretsScan, place: Path, again: str):
    token = mint_credential("sk-lp-").token
    (place / "stdout.txt").write_text(FIRST_START.format(token) + again.format(token))

    assert kinds(scan) == {"key or token"}


def test_programs_that_a_test_wrote_may_hold_secrets(scan: SecretsScan, place: Path):
    in_text(place / "app.py", PROMPT)

    assert kinds(scan) == set()


def test_nothing_to_read_is_nothing_found():
    outcome = SecretsScan().run()

    assert (outcome.findings, outcome.files, outcome.texts) == ((), 0, 0)


# -- the session

_TESTS = """
import logging

from tests.secrets_scan import SCAN

TOKEN = "{token}"

def test_quiet():
    pass

def test_leaking_file(tmp_path):
    for number in range(8):
        (tmp_path / "export.csv").open("a").write(TOKEN + "\\n")

def test_leaking_log():
    SCAN.secrets.add("password", "hunter2-hunter2")
    logging.getLogger("lingpai").warning("signed in with hunter2-hunter2")
"""


def run_session(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A pytest session with the suite's conftest, in a folder of its own."""
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(place),
            "-c", "/dev/null", "--basetemp", str(place / "tmp"), str(place / "test_planted.py"), *arguments,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=place, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_session_that_leaks_fails_and_says_where_but_not_what(place: Path):
    """All its tests passed."""
    token = mint_credential("sk-lp-").token
    (place / "test_planted.py").write_text(_TESTS.format(token=token))

    outcome = run_session(place)

    assert outcome.returncode == pytest.ExitCode.TESTS_FAILED
    assert "3 passed" in outcome.stdout
    assert "export.csv, byte 0: key or token" in outcome.stdout
    assert "export.csv: 3 more" in outcome.stdout
    assert "test_leaking_log (Captured log call)" in outcome.stdout
    assert "hunter2" not in outcome.stdout
    assert token not in outcome.stdout


def test_a_session_without_leaks_passes(place: Path):
    (place / "test_planted.py").write_text(_TESTS.format(token="none"))

    outcome = run_session(place, "-k", "quiet or file")

    assert outcome.returncode == pytest.ExitCode.OK
    assert "No secret in 1 files" in outcome.stdout
