"""The scan after the tests can fail: what is planted is found, in every kind of place and form, and is not repeated."""

import asyncio
import base64
import copy
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import openai
import pytest

from lingpai.ids import mint_credential
from tests.e2e import raw_http, stock_clients
from tests.secrets_scan import KINDS, SecretsScan, without_what_is_shown

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
    [("prompt", PROMPT), ("password", PASSWORD), ("provider key", PROVIDER_KEY)],
)
def test_told_secret_in_a_file_is_found(scan: SecretsScan, place: Path, name: str, kind: str, secret: str):
    PLACES[name](place / name, secret)

    assert kinds(scan) == {kind}


def test_provider_key_in_metrics_is_found(scan: SecretsScan, place: Path):
    in_metrics(place / "metrics.txt", PROVIDER_KEY)

    assert kinds(scan) == {"provider key"}


def test_secret_in_a_text_is_found_and_its_place_named(scan: SecretsScan):
    scan.note("answer 401", f'{{"error": {{"message": "no key {PROVIDER_KEY}"}}}}')

    (finding,) = scan.run().findings

    assert str(finding) == "answer 401, byte 30: provider key"


def test_secret_across_two_blocks_is_found_once(scan: SecretsScan, place: Path):
    """Files are read in blocks."""
    at = (8 << 20) - 7
    with (place / "stderr.txt").open("wb") as file:
        file.seek(at)
        file.write(mint_credential("rt-lp-").token.encode())

    assert [finding.offset for finding in scan.run().findings] == [at]


# -- kinds and forms


@pytest.mark.parametrize("prefix", ["sk-lp-", "at-lp-", "rt-lp-", "cs-lp-", "ss-lp-", "in-lp-", "sg-lp-"])
def test_every_credential_is_known_by_its_checksum(scan: SecretsScan, prefix: str):
    scan.note("log", f"x{mint_credential(prefix).token}x")  # type: ignore[arg-type]

    assert kinds(scan) == {"key or token"}


def test_what_only_looks_like_a_key_is_none(scan: SecretsScan):
    scan.note("documentation", f"sk-lp-{'x' * 61} sk-lp-[hidden] sk-lp-…1234")

    assert kinds(scan) == set()


def test_jwt_is_known_by_its_form_and_its_signature_by_having_been_seen(scan: SecretsScan):
    head, claims, signature = (
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"EdDSA"}', b'{"iss":"a server"}', bytes(64))
    )
    scan.secrets.add_credentials(f'{{"access_token":"{head}.{claims}.{signature}"}}')

    scan.note("a log", f"Bearer {head}.{claims}.{signature}")
    scan.note("another", f"the signature {signature} is good")

    assert {finding.kind for finding in scan.run().findings} == {"JWT", "signature of a JWT"}


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
    scan.secrets.add("prompt", "Hello there")
    scan.secrets.add("password", "letmein")
    scan.note("log", "Hello there letmein")

    assert kinds(scan) == set()


@pytest.mark.parametrize(
    "form", ["letmein!", base64.b64encode(b"x:letmein!").decode(), quote("letmein!"), "6c65746d65696e21"]
)
def test_short_passwords_are_looked_for(scan: SecretsScan, form: str):
    """From eight characters on; those of variables too."""
    scan.secrets.add_environment({"SMTP_PASSWORD": "letmein!"})
    scan.note("log", f"signed in with {form}")

    assert kinds(scan) == {"password"}


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


def test_programs_are_read_like_any_file(scan: SecretsScan, place: Path):
    in_text(place / "app.py", PROMPT)

    assert kinds(scan) == {"prompt"}


def test_nothing_to_read_is_nothing_found():
    outcome = SecretsScan().run()

    assert (outcome.findings, outcome.files, outcome.texts) == ((), 0, 0)


# -- what a command may show


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        (("keys", "create", "app"), "sk-lp-"), (("keys", "rotate", "app"), "sk-lp-"),
        (("keys", "signing-keys", "create", "app", "laptop"), "sg-lp-"),
        (("clients", "create", "app", "--json"), "cs-lp-"), (("token",), "at-lp-"),
    ],
)  # fmt: skip
def test_a_command_may_show_its_one_secret_and_no_other(
    scan: SecretsScan, arguments: tuple[str, ...], prefix: str
):
    mine, other = mint_credential(prefix).token, mint_credential("rt-lp-").token  # type: ignore[arg-type]

    assert left_of(scan, arguments, f"{mine}\n") == set()
    assert left_of(scan, arguments, f"{mine}\n{mine}\n") == {"key or token"}
    assert left_of(scan, arguments, f"{mine}\n{other}\n") == {"key or token"}
    assert left_of(scan, arguments, f"{other}\n") == {"key or token"}
    assert left_of(scan, arguments, f"{mine} made with {PROVIDER_KEY}\n") == {"provider key"}


@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_model_may_repeat_its_own_prompt_and_nothing_else(scan: SecretsScan, command: str):
    scan.secrets.add_prompts(b"mine-canary-4711 other-canary-4711 piped-canary-4711")
    arguments = (command, "echo", "Say mine-canary-4711!")

    assert left_of(scan, arguments, "You said mine-canary-4711!") == set()
    assert left_of(scan, arguments, "You said piped-canary-4711!", stdin="piped-canary-4711") == set()
    assert left_of(scan, arguments, "They said other-canary-4711!") == {"prompt"}
    assert left_of(scan, arguments, f"mine-canary-4711 {PROVIDER_KEY}") == {"provider key"}
    assert left_of(scan, arguments, mint_credential("sk-lp-").token) == {"key or token"}


def test_other_commands_may_show_nothing(scan: SecretsScan):
    assert left_of(scan, ("keys", "list"), mint_credential("sk-lp-").token) == {"key or token"}


def left_of(scan: SecretsScan, arguments: tuple[str, ...], output: str, *, stdin: str = "") -> set[str]:
    """The kinds of secrets that are found in what a command showed."""
    scan = copy.deepcopy(scan)
    scan.note("stdout", without_what_is_shown(arguments, stdin, output))
    return kinds(scan)


# -- what clients send and get


class Echo(BaseHTTPRequestHandler):
    """Refuses every call, and says what it was."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


MESSAGES = [{"role": "user", "content": "Hello, client-canary-4711"}]
OPTIONS = {"api_key": "none", "max_retries": 0}


def with_sdk(base: str) -> None:
    with (
        stock_clients.openai_client(base_url=base, **OPTIONS) as client,
        pytest.raises(openai.BadRequestError),
    ):
        client.chat.completions.create(model="any", messages=MESSAGES)  # type: ignore[arg-type]


def with_async_sdk(base: str) -> None:
    async def call() -> None:
        async with stock_clients.async_openai_client(base_url=base, **OPTIONS) as client:
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model="any", messages=MESSAGES)  # type: ignore[arg-type]

    asyncio.run(call())


def with_requests(base: str) -> None:
    with stock_clients.requests_session() as session:
        assert session.post(base, json=MESSAGES, timeout=10).status_code == 400


def with_form(base: str) -> None:
    answer = stock_clients.httpx2_post(base, files={"file": ("a.txt", b"client-canary-4711")})
    assert answer.status_code == 400


@pytest.mark.parametrize("call", [with_sdk, with_async_sdk, with_requests, with_form])
def test_prompts_and_errors_of_every_client_are_told_to_the_scan(
    scan: SecretsScan, echo: str, monkeypatch: pytest.MonkeyPatch, call: Callable[[str], None]
):
    for module in (stock_clients, raw_http):
        monkeypatch.setattr(module, "SCAN", scan)

    call(echo)

    assert {(each.place, each.kind) for each in scan.run().findings} == {("answer 400", "prompt")}


# -- what a whole run must have left

_EXAMPLES = {
    "log": "stderr.txt", "database": "lingpai.db", "journal": "000000000001.journal", "metrics": "42-metrics.txt",
    "export of usage as CSV": "42-usage.csv", "export of usage as JSON lines": "42-usage.jsonl",
    "export of requests as CSV": "42-requests.csv", "export of requests as JSON lines": "42-requests.jsonl",
    "list of audit records": "42-audit.json", "export of audit records as CSV": "42-audit.csv",
    "list of keys": "42-keys.json", "list of clients": "42-clients.json", "list of events": "42-events.json",
    "list of requests": "42-requests.json", "list of sessions": "42-sessions.json",
}  # fmt: skip


def fill(folder: Path, *, but: str = "", text: str = "something") -> None:
    for kind, name in _EXAMPLES.items():
        if kind != but:
            (folder / name).write_text(text)


def test_a_run_that_left_something_of_every_kind_misses_none(scan: SecretsScan, place: Path):
    fill(place)
    scan.note("answer 401", "no")

    assert scan.run().missing == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_without_a_file_is_missing(scan: SecretsScan, place: Path, kind: str):
    fill(place, but=kind)
    scan.note("answer 401", "no")

    assert scan.run().missing == (kind,)


def test_empty_files_and_other_texts_do_not_count(scan: SecretsScan, place: Path):
    fill(place, text="")
    scan.note("stderr of lingpai keys list", "answer 401")

    assert scan.run().missing == (*KINDS, "error answer")


# -- folders that would be deleted


def test_a_folder_that_is_taken_is_read_and_deleted_at_the_end(place: Path):
    scan, folder = SecretsScan(), place / "worker"
    folder.mkdir()
    in_text(folder / "0.log", mint_credential("sk-lp-").token)

    scan.take(folder)
    is_kept = folder.exists()

    assert is_kept
    assert kinds(scan) == {"key or token"}
    assert not folder.exists()


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


def run_session(
    place: Path, *arguments: str, files: tuple[str, ...] = ("test_planted.py",)
) -> subprocess.CompletedProcess[str]:
    """A pytest session with the suite's conftest, in a folder of its own."""
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(place),
            "-c", "/dev/null", "--basetemp", str(place / "tmp"), *(str(place / file) for file in files), *arguments,
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


def test_a_whole_session_that_left_too_little_fails_and_says_of_what(place: Path):
    (place / "test_planted.py").write_text("def test_quiet(): pass\n")

    outcome = run_session(place, "-o", "testpaths=.", files=())

    assert outcome.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in outcome.stdout
    assert "had nothing to read of: log, database, journal, metrics, export of usage as CSV" in outcome.stdout


@pytest.mark.parametrize("arguments", [("test_planted.py",), ("-k", "quiet"), ("-x",), ("--collect-only",)])
def test_a_session_that_is_not_whole_may_leave_little(place: Path, arguments: tuple[str, ...]):
    """One file, some tests, or until the first failure."""
    failing = "def test_failing(): assert False\n" if "-x" in arguments else ""
    (place / "test_planted.py").write_text(f"def test_quiet(): pass\ndef test_other(): pass\n{failing}")

    outcome = run_session(place, "-o", "testpaths=.", *arguments, files=())

    assert outcome.returncode == (pytest.ExitCode.TESTS_FAILED if failing else pytest.ExitCode.OK)
    assert "had nothing to read of" not in outcome.stdout
