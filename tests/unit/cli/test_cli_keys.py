"""`lingpai keys`, as a process against a server on admin.sock."""

import json

import pytest

from lingpai.ids import credential_id


def test_create_prints_the_key_alone_on_stdout(lingpai, api):
    """`KEY=$(lingpai keys create x)` takes exactly the key; the words are on stderr."""
    outcome = lingpai("keys", "create", "my-app")

    assert outcome.returncode == 0
    assert credential_id(outcome.stdout.removesuffix("\n").encode()) is not None
    assert "shown once" in outcome.stderr
    assert outcome.stdout.strip() not in outcome.stderr
    assert api.last.body == {"name": "my-app"}
    assert "authorization" not in api.last.headers


def test_create_passes_every_restriction_on(lingpai, api):
    outcome = lingpai(
        "keys", "create", "x", "--user", "alice", "--scope", "usage:read", "--scope", "model:inference",
        "--model", "acme/*", "--limit", "2000/day@Asia/Shanghai", "--limit", "10/1s",
        "--allow-ip", "203.0.113.0/24", "--expires", "90d",
    )  # fmt: skip

    assert outcome.returncode == 0, outcome.stderr
    assert api.last.body == {
        "name": "x",
        "user": "alice",
        "scopes": ["usage:read", "model:inference"],
        "models": ["acme/*"],
        "limits": ["2000/day@Asia/Shanghai", "10/1s"],
        "allowed_ips": ["203.0.113.0/24"],
        "expires_in": "90d",
    }


def test_create_json_has_exactly_the_promised_fields(lingpai, api):
    outcome = lingpai("keys", "create", "x", "--expires", "2027-01-31", "--json")

    promised = [
        "id", "name", "key", "user", "scopes", "models", "limits", "allowed_ips", "expires_at", "created_at",
    ]  # fmt: skip
    assert list(json.loads(outcome.stdout)) == promised
    assert outcome.stderr == ""
    assert api.last.body["expires_at"] == "2027-01-31"


def test_create_refuses_an_expiry_that_is_neither_duration_nor_date(lingpai, api):
    outcome = lingpai("keys", "create", "x", "--expires", "soon")

    assert outcome.returncode == 2
    assert "90d" in outcome.stderr
    assert api.requests == []


def test_list_json_is_a_plain_list_over_all_pages(lingpai, api):
    api.page_size = 2
    for number in range(5):
        api.add_key(f"key-{number}")

    outcome = lingpai("keys", "list", "--json")

    keys = json.loads(outcome.stdout)
    assert [key["name"] for key in keys] == [f"key-{number}" for number in range(5)]
    assert all("key" not in key for key in keys)
    assert len(api.requests) == 3


def test_list_is_a_plain_table_when_piped(lingpai, api):
    """Nothing is folded, coloured or steered by what somebody called a key."""
    api.add_key("my-app", last_used_at="2026-11-20T07:00:00Z", user="alice")
    api.add_key("evil\x1b[2J[red]name", disabled=True)

    outcome = lingpai("keys", "list")

    lines = outcome.stdout.splitlines()
    assert lines[0].split()[:3] == ["name", "user", "id"]
    assert "2026-11-20 15:00" in lines[1]
    assert "evil\\x1b[2J[red]name" in lines[2]
    assert "\x1b" not in outcome.stdout


def test_an_empty_list_says_what_to_do_on_stderr(lingpai, api):
    outcome = lingpai("keys", "list")

    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert "lingpai keys create" in outcome.stderr


@pytest.mark.parametrize(("command", "disabled"), [("disable", True), ("enable", False)])
def test_disable_and_enable_by_name(lingpai, api, command, disabled):
    api.add_key("my-app")

    outcome = lingpai("keys", command, "my-app")

    assert outcome.returncode == 0
    assert (api.last.method, api.last.path) == ("PATCH", "/api/v1/keys/my-app")
    assert api.last.body == {"disabled": disabled}


def test_delete_without_a_terminal_needs_yes(lingpai, api):
    key = api.add_key("my-app")

    refused = lingpai("keys", "delete", "my-app")
    still_there = dict(api.keys)
    done = lingpai("keys", "delete", key["id"], "--yes")

    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert still_there
    assert done.returncode == 0
    assert api.keys == {}


def test_show_prints_details_and_a_missing_key_fails(lingpai, api):
    api.add_key("my-app", allowed_ips=["203.0.113.0/24"])

    found = lingpai("keys", "show", "my-app")
    missing = lingpai("keys", "show", "other")

    assert "203.0.113.0/24" in found.stdout
    assert missing.returncode == 1
    assert "There is no key other" in missing.stderr


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "active"),
        ({"state": "expired"}, "expired"),
        ({"state": "disabled", "disabled_because": "disabled"}, "disabled"),
    ],
)
def test_state_says_why_a_key_is_not_accepted(lingpai, api, fields, state):
    api.add_key("my-app", **fields)

    listed = lingpai("keys", "list")
    shown = lingpai("keys", "show", "my-app")

    assert listed.stdout.splitlines()[1].split()[4] == state
    assert ["state", state] in [line.split() for line in shown.stdout.splitlines()]


def test_state_says_why_a_key_is_disabled(lingpai, api):
    api.add_key("my-app", state="disabled", disabled_because="reported as leaked")

    shown = lingpai("keys", "show", "my-app")

    assert "disabled: reported as leaked" in shown.stdout


def test_list_passes_every_filter_on(lingpai, api):
    lingpai(
        "keys", "list", "--user", "alice", "--project", "search", "--search", "50%", "--scope", "usage:read",
        "--state", "expired",
    )  # fmt: skip

    assert api.last.query == {
        "user": "alice", "project": "search", "search": "50%", "scope": "usage:read", "state": "expired",
        "limit": "200",
    }  # fmt: skip


def test_rotate_prints_the_new_key_alone_on_stdout(lingpai, api):
    """`KEY=$(lingpai keys rotate x)` takes exactly the key; when the old one ends is on stderr."""
    made = api.add_key("my-app")

    outcome = lingpai("keys", "rotate", "my-app", "--overlap", "7d")

    assert outcome.returncode == 0
    assert credential_id(outcome.stdout.removesuffix("\n").encode()) == made["id"]
    assert f"({made['hint']}) works until 2099-01-01" in outcome.stderr
    assert outcome.stdout.strip() not in outcome.stderr
    assert api.last.body == {"overlap": "7d"}


def test_rotate_leaves_the_overlap_to_the_server_and_says_when_there_is_none(lingpai, api):
    api.add_key("my-app")

    lingpai("keys", "rotate", "my-app")
    usual = api.last.body
    at_once = lingpai("keys", "rotate", "my-app", "--overlap", "0s")

    assert usual == {}
    assert "The one before it has ended." in at_once.stderr


def test_rotate_in_json_has_the_key_and_both_secrets(lingpai, api):
    made = api.add_key("my-app")

    rotated = json.loads(lingpai("keys", "rotate", "my-app", "--json").stdout)

    assert rotated["id"] == made["id"]
    assert credential_id(rotated["key"].encode()) == made["id"]
    assert [bool(secret["expires_at"]) for secret in rotated["secrets"]] == [False, True]


def test_show_tells_whether_the_old_secret_is_still_used(lingpai, api):
    made = api.add_key("my-app")
    lingpai("keys", "rotate", "my-app")

    [line] = [line for line in lingpai("keys", "show", "my-app").stdout.splitlines() if "old secret" in line]

    assert made["hint"] in line
    assert "works until 2099-01-01" in line
    assert "last used 2026-11-20" in line
