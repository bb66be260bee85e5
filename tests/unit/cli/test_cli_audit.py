"""`lingpai audit`, as processes against a server on admin.sock, and on folders without a trail."""

import json

import pytest

from tests.fakes.management_api import Answer

RECORD = {
    "number": 6, "time": "2026-11-20T08:00:00.123Z", "action": "key.update", "result": "done", "reason": None,
    "actor": {"kind": "user", "id": "usr_1", "name": "alice", "credential": {"kind": "key", "id": "k0"}},
    "target": {"kind": "key", "id": "k1", "name": "ci"}, "project_id": "prj_1",
    "before": {"limits": [], "models": []}, "after": {"limits": ["5/day"], "models": ["a/b"]},
    "address": "203.0.113.7", "user_agent": "curl/8", "request_id": "req_1", "previous": "0" * 64, "hash": "1" * 64,
}  # fmt: skip
PATH = "/api/v1/audit"


def test_list_passes_filters_on_and_shows_who_changed_what(lingpai, api):
    api.faults["GET", PATH] = Answer(body={"data": [RECORD], "next_cursor": None})

    outcome = lingpai(
        "audit", "list", "--actor", "alice", "--result", "done", "--since", "7d", "--limit", "5"
    )

    assert api.last.query == {
        "actor": "alice",
        "result": "done",
        "since": "7d",
        "limit": "5",
        "tz": "Asia/Shanghai",
    }
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["number", "time", "who", "action", "what", "result", "address", "change"]
    assert lines[1].split() == [
        "6",
        *("2026-11-20", "16:00"),
        "alice",
        "key.update",
        *("key", "ci"),
        "done",
        "203.0.113.7",
        *("limits,", "models"),
    ]


def test_list_json_is_a_plain_list(lingpai, api):
    api.faults["GET", PATH] = Answer(body={"data": [RECORD], "next_cursor": None})

    assert json.loads(lingpai("audit", "list", "--json").stdout) == [RECORD]


def test_no_records_are_said_in_words(lingpai, api):
    api.faults["GET", PATH] = Answer(body={"data": [], "next_cursor": None})

    outcome = lingpai("audit", "list", "--search", "nothing")

    assert (outcome.stdout, outcome.stderr) == ("", "There are no such records.\n")


def test_export_passes_on_what_the_server_answers(lingpai, api, tmp_path):
    api.faults["GET", f"{PATH}/export"] = Answer(
        body=b"number\r\n1\r\n", headers={"content-type": "text/csv"}
    )

    outcome = lingpai("audit", "export", "--format", "csv", "--output", str(tmp_path / "a.csv"))

    assert outcome.returncode == 0
    assert (tmp_path / "a.csv").read_bytes() == b"number\r\n1\r\n"
    assert api.last.query == {"format": "csv", "bom": "false", "tz": "Asia/Shanghai"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify",), "There is no key to verify signatures with"),
        (("keys",), "audit.json, nor its folder. Is the data directory another one (--data)?"),
        (("rotate-key",), "lingpai.db"),
        (
            ("verify", "missing.jsonl", "--key", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
            "cannot be read",
        ),
        (("verify", "--key", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"), "There is no"),
    ],
)
def test_a_folder_without_a_trail_is_told(lingpai, arguments, said):
    outcome = lingpai("audit", *arguments)

    assert outcome.returncode == 1
    assert said in outcome.stderr


def test_a_checkpoint_beside_a_file_makes_no_sense(lingpai):
    outcome = lingpai(
        "audit",
        "verify",
        "a.jsonl",
        "--checkpoint",
        "c.json",
        "--key",
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    )

    assert outcome.returncode == 2


def test_a_file_that_was_tampered_with_cannot_steer_the_terminal(lingpai, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"type":"begin"}\n{"number":1,"time":"\\u001b[2J","type":"record"}\n')

    outcome = lingpai("audit", "verify", "a.jsonl", "--key", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")

    assert outcome.returncode == 1
    assert "\x1b" not in outcome.stdout + outcome.stderr
