"""`lingpai clients`, as a process against a server on admin.sock."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from lingpai.ids import credential_id


def test_create_prints_the_secret_alone_on_stdout(lingpai, api):
    """`SECRET=$(lingpai clients create x)` takes exactly the secret; the id and the words are on stderr."""
    outcome = lingpai("clients", "create", "nightly")

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("cs-lp-")
    assert credential_id(outcome.stdout.removesuffix("\n").encode()) is not None
    assert api.clients["nightly"]["client_id"] in outcome.stderr
    assert "shown once" in outcome.stderr
    assert outcome.stdout.strip() not in outcome.stderr
    assert api.last.body == {"name": "nightly"}


def test_create_passes_every_restriction_on(lingpai, api):
    outcome = lingpai(
        "clients", "create", "x", "--user", "alice", "--project", "search", "--scope", "usage:read",
        "--model", "acme/*", "--limit", "2000/day@Asia/Shanghai", "--limit", "10/1s", "--grant", "client_credentials",
        "--grant", "refresh_token", "--allow-ip", "203.0.113.0/24", "--expires", "90d", "--token-lifetime", "900",
    )  # fmt: skip

    assert outcome.returncode == 0, outcome.stderr
    assert api.last.body == {
        "name": "x",
        "user": "alice",
        "project": "search",
        "grants": ["client_credentials", "refresh_token"],
        "token_lifetime_s": 900,
        "scopes": ["usage:read"],
        "models": ["acme/*"],
        "limits": ["2000/day@Asia/Shanghai", "10/1s"],
        "allowed_ips": ["203.0.113.0/24"],
        "expires_in": "90d",
    }


def test_create_json_begins_with_id_and_secret(lingpai, api):
    outcome = lingpai("clients", "create", "x", "--json")

    made = json.loads(outcome.stdout)
    assert list(made) == [
        "client_id", "client_secret", "name", "user", "project", "grants", "public", "scopes", "models", "limits",
        "allowed_ips", "token_lifetime_s", "expires_at", "created_at",
    ]  # fmt: skip
    assert made["client_id"].startswith("cl-lp-")
    assert made["client_secret"].startswith("cs-lp-")
    assert outcome.stderr == ""


def test_public_client_is_known_by_its_id(lingpai, api):
    outcome = lingpai("clients", "create", "desktop", "--public", "--grant", "password")

    assert outcome.stdout == f"{api.clients['desktop']['client_id']}\n"
    assert "no secret" in outcome.stderr
    assert api.last.body == {"name": "desktop", "public": True, "grants": ["password"]}


def test_nothing_that_was_asked_for_is_left_out(lingpai, api):
    """What makes no sense is the server's to refuse."""
    api.add_client("nightly")

    lingpai("clients", "create", "x", "--token-lifetime", "0")
    lingpai("clients", "update", "nightly", "--token-lifetime", "0", "--scope", "all")

    assert [request.body for request in api.requests] == [
        {"name": "x", "token_lifetime_s": 0},
        {"token_lifetime_s": 0, "scopes": ["all"]},
    ]


def test_unknown_grant_is_refused_before_anything_is_asked(lingpai, api):
    outcome = lingpai("clients", "create", "x", "--grant", "implicit")

    assert (outcome.returncode, api.requests) == (2, [])
    assert "client_credentials" in outcome.stderr


def test_list_never_shows_a_secret(lingpai, api):
    secret = api.add_client("nightly")["client_secret"]
    api.add_client("evil\x1b[2J[red]name", disabled=True)

    table, plain = lingpai("clients", "list"), lingpai("clients", "list", "--json")

    lines = table.stdout.splitlines()
    assert lines[0].split()[:4] == ["name", "user", "client", "id"]
    assert lines[1].split()[:2] == ["nightly", "admin"]
    assert "evil\\x1b[2J[red]name" in lines[2]
    assert "disabled" in lines[2]
    assert [client["name"] for client in json.loads(plain.stdout)] == ["nightly", "evil\x1b[2J[red]name"]
    assert secret not in table.stdout + plain.stdout


def test_an_empty_list_says_what_to_do_on_stderr(lingpai, api):
    outcome = lingpai("clients", "list")

    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert "lingpai clients create" in outcome.stderr


def test_show_tells_of_the_secret_before(lingpai, api):
    api.add_client(
        "nightly", old_hint="cs-lp-…abcd", old_expires_at="2099-01-01T00:00:00Z", token_lifetime_s=900
    )

    found, missing = lingpai("clients", "show", "nightly"), lingpai("clients", "show", "other")

    assert "cs-lp-…abcd until 2099-01-01 08:00" in found.stdout
    assert "900 s" in found.stdout
    assert missing.returncode == 1
    assert "There is no client `other`" in missing.stderr


def test_update_sends_what_changes_only(lingpai, api):
    api.add_client("nightly")

    outcome = lingpai(
        "clients", "update", "nightly", "--name", "hourly", "--limit", "5/day", "--model", "all", "--allow-ip", "any",
        "--token-lifetime", "default", "--expires", "never",
    )  # fmt: skip

    assert outcome.returncode == 0, outcome.stderr
    assert (api.last.method, api.last.path) == ("PATCH", "/api/v1/clients/nightly")
    assert api.last.body == {
        "name": "hourly",
        "limits": ["5/day"],
        "models": [],
        "allowed_ips": [],
        "token_lifetime_s": None,
        "expires_at": None,
    }


def test_update_takes_a_duration_from_now_on(lingpai, api):
    api.add_client("nightly")

    lingpai("clients", "update", "nightly", "--expires", "90d", "--token-lifetime", "60")

    ends_at = datetime.fromisoformat(api.last.body["expires_at"])
    assert timedelta(days=89, hours=23) < ends_at - datetime.now(UTC) <= timedelta(days=90)
    assert api.last.body["token_lifetime_s"] == 60


@pytest.mark.parametrize("arguments", [[], ["--expires", "soon"], ["--expires", "999999999w"]])
def test_update_without_a_change_or_with_a_senseless_one_asks_nothing(lingpai, api, arguments):
    outcome = lingpai("clients", "update", "nightly", *arguments)

    assert (outcome.returncode, api.requests) == (2, [])


def test_rotate_prints_the_new_secret_alone(lingpai, api):
    api.add_client("nightly")

    outcome = lingpai("clients", "rotate", "nightly", "--overlap", "1h")
    at_once = lingpai("clients", "rotate", "nightly", "--json")

    assert credential_id(outcome.stdout.removesuffix("\n").encode()) is not None
    assert "works until 2026-11-20 16:00" in outcome.stderr
    assert [request.body for request in api.requests] == [{"overlap": "1h"}, {}]
    assert {"client_id", "client_secret", "rotated_at", "old_expires_at"} <= set(json.loads(at_once.stdout))


@pytest.mark.parametrize(("command", "disabled"), [("disable", True), ("enable", False)])
def test_disable_and_enable_by_name(lingpai, api, command, disabled):
    api.add_client("nightly")

    outcome = lingpai("clients", command, "nightly")

    assert outcome.returncode == 0
    assert api.last.body == {"disabled": disabled}
    assert f"{command.capitalize()}d client nightly" in outcome.stderr


def test_delete_without_a_terminal_needs_yes(lingpai, api):
    api.add_client("nightly")

    refused = lingpai("clients", "delete", "nightly")
    still_there = dict(api.clients)
    done = lingpai("clients", "delete", "nightly", "--yes", "--json")

    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert still_there
    assert set(json.loads(done.stdout)) == {"client_id", "name", "deleted"}
    assert api.clients == {}
