"""`lingpai secrets`, and keys for providers: what is sent, what is shown, and what is not."""

import json
import os
import pty

import pytest

from lingpai.cli import secret_input
from lingpai.cli.failures import UsageError
from tests.fakes.management_api import NOW, error, secret_version

TARGET = "https://api.example.com/v1"
KEY = "canary-provider-key-x7Qa"


def test_list_shows_age_state_and_what_needs_each_version(lingpai, api):
    api.secrets = [
        secret_version("pepper", "1", "old", uses={"API keys": 1200, "sessions": 3}),
        secret_version("pepper", "2", "current"),
        secret_version("signing", "tsk_1", "old", algorithm="EdDSA", verify_until=NOW, place="database"),
        secret_version("signing", "tsk_2", "next", algorithm="EdDSA", use_from="2026-11-20T09:00:00Z"),
    ]

    table = lingpai("secrets", "list")
    as_json = lingpai("secrets", "list", "--json")

    lines = table.stdout.splitlines()
    assert lines[1].split()[:3] == ["pepper", "1", "old"]
    assert "API keys: 1,200" in lines[1]
    assert "sessions: 3" in lines[2]
    assert "old, until 2026-11-20 16:00" in table.stdout
    assert "next, from 2026-11-20 17:00" in table.stdout
    assert json.loads(as_json.stdout) == api.secrets


@pytest.mark.parametrize(
    ("kind", "next_step"),
    [("pepper", "when they are used next"), ("root", "sealed anew"), ("signing", "after its last token")],
)
def test_rotate_says_what_happens_now(lingpai, api, kind, next_step):
    outcome = lingpai("secrets", "rotate", kind)

    assert (api.last.method, api.last.path) == ("POST", f"/api/v1/secrets/{kind}/rotate")
    assert api.last.body == {"leaked": False}
    assert f"Made {kind} 2." in outcome.stderr
    assert next_step in outcome.stderr
    assert outcome.stdout.splitlines()[1].split()[:3] == [kind, "2", "current"]


def test_rotate_leaked_says_that_old_tokens_end(lingpai, api):
    outcome = lingpai("secrets", "rotate", "signing", "--leaked", "--json")

    assert api.last.body == {"leaked": True}
    assert "nothing signed by an older one is accepted" in outcome.stderr
    assert json.loads(outcome.stdout)[0]["version"] == "2"


def test_retire_names_the_version(lingpai, api):
    outcome = lingpai("secrets", "retire", "pepper", "1")

    assert (api.last.method, api.last.path) == ("DELETE", "/api/v1/secrets/pepper/1")
    assert "Retired pepper 1." in outcome.stderr


def test_retire_passes_on_why_not(lingpai, api):
    message = "The pepper 1 is still needed (API keys: 3)."
    api.faults["DELETE", "/api/v1/secrets/pepper/1"] = error(400, "invalid_request", message)

    outcome = lingpai("secrets", "retire", "pepper", "1")

    assert outcome.returncode == 1
    assert message in outcome.stderr


def test_there_are_three_kinds(lingpai, api):
    outcome = lingpai("secrets", "rotate", "passwords")

    assert outcome.returncode == 2
    assert api.requests == []


# -- keys for providers


def test_models_add_sends_the_key_from_stdin(lingpai, api):
    outcome = lingpai("models", "add", TARGET, "--api-key-stdin", stdin=f"{KEY}\n")

    assert api.last.body == {"target": TARGET, "api_key": KEY}
    assert KEY not in outcome.stdout + outcome.stderr


def test_models_add_without_the_flag_reads_no_key(lingpai, api):
    lingpai("models", "add", TARGET, stdin=KEY)

    assert api.last.body == {"target": TARGET}


@pytest.mark.parametrize("stdin", ["", "\n", "  \n", b"\xff\xfe canary"])
@pytest.mark.parametrize("command", ["add", "key"])
def test_missing_key_is_told_and_nothing_is_sent(lingpai, api, command, stdin):
    outcome = lingpai("models", command, TARGET, "--api-key-stdin", stdin=stdin)

    assert outcome.returncode == 2
    assert "stdin" in outcome.stderr
    assert "canary" not in outcome.stderr
    assert api.requests == []


def test_models_key_replaces_and_removes(lingpai, api):
    replaced = lingpai("models", "key", TARGET, "--api-key-stdin", stdin=KEY)
    removed = lingpai("models", "key", TARGET, "--remove", "--json")

    assert [request.body for request in api.requests] == [
        {"target": TARGET, "api_key": KEY},
        {"target": TARGET, "api_key": None},
    ]
    assert f"Replaced the key of {TARGET}." in replaced.stderr
    assert json.loads(removed.stdout) == {"target": TARGET, "has_api_key": False}


@pytest.mark.parametrize("flags", [[], ["--api-key-stdin", "--remove"]])
def test_models_key_needs_one_wish(lingpai, api, flags):
    outcome = lingpai("models", "key", TARGET, *flags, stdin=KEY)

    assert outcome.returncode == 2
    assert api.requests == []


def test_models_targets_shows_the_ends_of_keys(lingpai, api):
    api.targets = [
        {
            "target": TARGET, "added_at": NOW, "is_served": True, "models": ["a", "b"],
            "api_key": {"hint": "…x7Qa", "set_at": NOW},
        },
        {"target": "ollama", "added_at": NOW, "is_served": False, "models": [], "api_key": None},
    ]  # fmt: skip

    table = lingpai("models", "targets")
    as_json = lingpai("models", "targets", "--json")

    first, second = table.stdout.splitlines()[1:]
    assert first.split()[:4] == [TARGET, "served", "2", "…x7Qa"]
    assert second.split()[:3] == ["ollama", "away", "0"]
    assert json.loads(as_json.stdout) == api.targets


def test_no_target_says_how_to_add_one(lingpai, api):
    assert "lingpai models add TARGET" in lingpai("models", "targets").stderr


def test_secret_at_a_terminal_is_typed_unseen(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr("getpass.getpass", lambda prompt: f" {prompt[:8]}-typed ")

        assert secret_input.read_secret("provider's key") == "provider-typed"
        monkeypatch.setattr("getpass.getpass", lambda prompt: "")
        with pytest.raises(UsageError):
            secret_input.read_secret("provider's key")
    os.close(ours)
