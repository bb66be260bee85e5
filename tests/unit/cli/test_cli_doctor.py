"""`lingpai doctor`: every fault has its own sentence and a next step."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest

from lingpai.cli.checks.address import check_address
from lingpai.cli.checks.health import check_clock
from lingpai.cli.checks.key import check_expiry, check_form, check_limits
from lingpai.ids import mint_credential
from tests.fakes.management_api import Answer, error
from tests.fakes.terminal import Terminal

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
KEY = mint_credential("sk-lp-").token


def states(outcome):
    return {step["name"]: step["state"] for step in json.loads(outcome.stdout)["steps"]}


def test_everything_is_fine(lingpai, remote, signed_in):
    outcome = lingpai("doctor", f"{remote.server}/v1/chat/completions", "--json", environment=signed_in)

    assert outcome.returncode == 0, outcome.stdout
    assert states(outcome) == dict.fromkeys(
        [
            "address",
            "name",
            "connection",
            "Lingpai",
            "ready",
            "clock",
            "key",
            "accepted",
            "expiry",
            "limits",
            "models",
        ],
        "ok",
    )


@pytest.mark.parametrize(
    ("code", "todo"),
    [
        ("key_disabled", "lingpai keys enable"),
        ("signature_required", "signing.md"),
        ("invalid_api_key", "new one"),
    ],
)
def test_a_key_that_is_refused_has_a_next_step(lingpai, remote, signed_in, code, todo):
    remote.faults["GET", "/v1/key"] = error(401, code, "No.")

    outcome = lingpai("doctor", "--json", environment=signed_in)

    steps = {step["name"]: step for step in json.loads(outcome.stdout)["steps"]}
    assert steps["accepted"]["state"] == "failed"
    assert todo in steps["accepted"]["next_step"]


def test_the_key_is_neither_shown_nor_sent_before_the_server_is_known(lingpai, remote, signed_in):
    outcome = lingpai("doctor", environment=signed_in)

    health = [request for request in remote.requests if request.path in {"/healthz", "/readyz"}]
    assert health
    assert all("authorization" not in request.headers for request in health)
    assert remote.accepted_key not in outcome.stdout + outcome.stderr


def test_the_server_of_the_data_directory_needs_no_key(lingpai, api):
    outcome = lingpai("doctor", "--json")

    assert outcome.returncode == 0, outcome.stdout
    assert states(outcome) == {
        "data directory": "ok", "secrets": "skipped", "admin.sock": "ok", "Lingpai": "ok", "ready": "ok",
        "clock": "ok", "accepted": "skipped", "models": "ok",
    }  # fmt: skip


def test_a_data_directory_without_a_server(lingpai, tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)

    outcome = lingpai("doctor")

    assert outcome.returncode == 1
    assert "✗ admin.sock" in outcome.stdout
    assert "→ Start one: lingpai serve --data" in outcome.stdout
    assert "Failed: admin.sock." in outcome.stderr


def test_open_secrets_are_a_failure(lingpai, api, tmp_path):
    secrets = tmp_path / "data" / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "pepper.json").write_text("{}")
    (secrets / "pepper.json").chmod(0o644)

    outcome = lingpai("doctor")

    assert outcome.returncode == 1
    assert f"chmod 600 {secrets / 'pepper.json'}" in outcome.stdout


def test_a_directory_that_others_may_change_is_a_failure(lingpai, api, tmp_path):
    (tmp_path / "data").chmod(0o777)

    assert "chmod go-w" in lingpai("doctor").stdout


def test_no_key_is_a_failure_on_a_remote_server(lingpai, remote):
    outcome = lingpai("doctor", remote.server, "--json")

    assert outcome.returncode == 1
    assert states(outcome)["key"] == "failed"


def test_a_key_of_another_server(lingpai, remote):
    outcome = lingpai("doctor", remote.server, environment={"LINGPAI_API_KEY": KEY})

    assert outcome.returncode == 1
    assert "✗ accepted" in outcome.stdout
    assert KEY not in outcome.stdout + outcome.stderr


def test_another_program_answers(lingpai, remote, signed_in):
    remote.faults["GET", "/healthz"] = Answer(200, b"<h1>It works!</h1>", {"content-type": "text/html"})

    outcome = lingpai("doctor", "--json", environment=signed_in)

    assert outcome.returncode == 1
    assert states(outcome)["Lingpai"] == "failed"
    assert all("authorization" not in request.headers for request in remote.requests), "a stranger got no key"


def test_models_are_still_loading(lingpai, remote, signed_in):
    remote.faults["GET", "/readyz"] = error(503, "model_loading", "acme/big is loading (40 %).")

    outcome = lingpai("doctor", environment=signed_in)

    assert outcome.returncode == 1
    assert "acme/big is loading" in outcome.stdout


def test_nothing_listens(lingpai):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    outcome = lingpai("doctor", address, "--json", environment={"LINGPAI_API_KEY": KEY})

    assert outcome.returncode == 1
    assert states(outcome) == {
        "address": "ok", "name": "ok", "connection": "failed", "key": "ok", "accepted": "skipped",
    }  # fmt: skip


def test_a_name_that_does_not_exist():
    steps = list(check_address("http://name.invalid"))

    assert [(step.name, step.state) for step in steps] == [("address", "warning"), ("name", "failed")]


def test_an_address_that_is_none(lingpai):
    outcome = lingpai("doctor", "ftp://models.example")

    assert outcome.returncode == 1
    assert "use http:// or https://" in outcome.stdout


def test_https_where_http_is_spoken(remote):
    steps = list(check_address(remote.server.replace("http://", "https://")))

    assert (steps[-1].name, steps[-1].state) == ("TLS", "failed")
    assert "http://" in steps[-1].todo


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_a_certificate_that_nobody_vouches_for(tmp_path):
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subject = ["-subj", "/CN=localhost", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=shake_hands, args=(listener, context))
        thread.start()
        steps = list(check_address(f"https://localhost:{listener.getsockname()[1]}"))
        thread.join()

    assert (steps[-1].name, steps[-1].state) == ("TLS", "failed")
    assert "not trusted" in steps[-1].detail


def shake_hands(listener, context):
    """Once for the connection step, once for TLS."""
    for _ in range(2):
        connection, _ = listener.accept()
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            connection.close()


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        (None, "not set"),
        ("", "empty"),
        (f"{KEY}\n", "line break"),
        (f" {KEY}", "blank"),
        (f"Bearer {KEY}", "header"),
        (f"Authorization: Bearer {KEY}", "header"),
        (f'"{KEY}"', "quotation"),
        (f"“{KEY}”", "quotation"),
        (f"{KEY[:6]}…{KEY[-4:]}", "hint"),
        (f"{KEY[:20]} {KEY[20:]}", "blank"),
        ("sk-proj-abcdef", "another service"),
        (mint_credential("cs-lp-").token, "client secret"),
        (KEY[:-3], "64 characters instead of 67"),
        (f"{KEY}x", "something was added"),
        (KEY[:30] + ("a" if KEY[30] != "a" else "b") + KEY[31:], "mistyped"),
    ],
)
def test_a_key_that_is_not_well_formed(key, detail):
    step = check_form(key)

    assert step.state == "failed"
    assert detail in step.detail
    assert step.todo
    assert not key or KEY not in f"{step.detail}{step.todo}"


@pytest.mark.parametrize("prefix", ["sk-lp-", "at-lp-"])
def test_a_well_formed_key(prefix):
    assert check_form(mint_credential(prefix).token).state == "ok"


@pytest.mark.parametrize(
    ("offset", "state", "words"),
    [
        (0, "ok", "agrees"),
        (25, "ok", "agrees"),
        (-40, "warning", "40 s ahead"),
        (90, "warning", "90 s behind"),
    ],
)
def test_the_clock(offset, state, words):
    header = (NOW + timedelta(seconds=offset)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    step = check_clock(header, now=NOW)

    assert step.state == state
    assert words in step.detail


@pytest.mark.parametrize("header", [None, "", "yesterday"])
def test_a_server_without_a_clock(header):
    assert check_clock(header, now=NOW).state == "skipped"


@pytest.mark.parametrize(
    ("expires_at", "state"),
    [(None, "ok"), ("2027-11-20T08:00:00Z", "ok"), ("2026-11-23T08:00:00Z", "warning"), ("soon", "skipped")],
)
def test_the_expiry(expires_at, state):
    assert check_expiry(expires_at, now=NOW).state == state


def test_a_spent_limit_is_a_warning():
    limit = {"subject": "user", "limit": "2000/day", "remaining": 0, "resets_at": "2026-11-20T16:00:00Z"}

    step = check_limits([limit])

    assert step.state == "warning"
    assert "2000/day of the user" in step.detail


@pytest.mark.parametrize(("setting", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(surroundings, api, setting, coloured):
    person = Terminal("doctor", environment={**surroundings, **setting})
    person.end()
    person.close()

    assert ("\x1b[32m✓" in person.seen) is coloured
    assert "✓" in person.seen
