"""`lingpai users`, `models` and `usage`, as processes against a server on admin.sock."""

import csv
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.fakes.management_api import Answer, error


def usage_row(requests, **group):
    amounts = {"prompt_tokens": 10, "completion_tokens": 20, "cost": 0, "errors": 1, "refused": 2}
    return {**group, "requests": requests, **amounts}


def test_users_create_list_disable(lingpai, api):
    created = lingpai("users", "create", "alice", "--role", "admin", "--limit", "10/1s", "--json")
    disabled = lingpai("users", "disable", "alice")
    listed = lingpai("users", "list", "--json")

    assert json.loads(created.stdout)["name"] == "alice"
    assert api.requests[0].body == {"name": "alice", "role": "admin", "limits": ["10/1s"]}
    assert "Disabled user alice" in disabled.stderr
    assert json.loads(listed.stdout)[0]["disabled"] is True


def test_users_list_passes_filters_on(lingpai, api):
    lingpai("users", "list", "--search", "ali", "--state", "disabled")

    assert api.last.query == {"search": "ali", "state": "disabled", "limit": "200"}


def test_users_create_knows_two_roles(lingpai, api):
    outcome = lingpai("users", "create", "alice", "--role", "owner")

    assert outcome.returncode == 2
    assert "member" in outcome.stderr


def test_models_list_shows_task_and_status(lingpai, api):
    outcome = lingpai("models", "list")

    assert outcome.stdout.splitlines()[1].split()[:4] == ["lingpai/eliza", "chat", "ready", "eliza"]


def test_models_show_takes_ids_with_slashes(lingpai, api):
    outcome = lingpai("models", "show", "lingpai/eliza", "--json")

    assert json.loads(outcome.stdout)["task"] == "chat"
    assert api.last.path == "/api/v1/models/lingpai/eliza"


def test_models_add_and_remove(lingpai, api):
    added = lingpai("models", "add", "http://127.0.0.1:11434/v1")
    removed = lingpai("models", "remove", "acme/added")

    assert "Added acme/added" in added.stderr
    assert api.requests[0].body == {"target": "http://127.0.0.1:11434/v1"}
    assert (api.last.method, api.last.path) == ("DELETE", "/api/v1/models/acme/added")
    assert removed.returncode == 0


def test_a_target_that_adds_no_model_is_not_said_to_have_none(lingpai, api):
    """Its models may all be left out because others have their ids."""
    api.faults["POST", "/api/v1/models"] = Answer(201, {"data": []})

    added = lingpai("models", "add", "http://127.0.0.1:11434/v1")

    assert "ids are taken" in added.stderr


def test_models_check_fails_when_a_step_fails(lingpai, api):
    good = lingpai("models", "check", "lingpai/eliza")
    bad = lingpai("models", "check", "lingpai/sentiment")

    assert (good.returncode, bad.returncode) == (0, 1)
    assert "✓  connect" in good.stdout
    assert "✗  call" in bad.stdout


def test_usage_asks_in_the_zone_of_the_machine(lingpai, api):
    api.usage = [usage_row(3)]

    outcome = lingpai("usage", "--json")

    assert json.loads(outcome.stdout)[0]["requests"] == 3
    assert api.last.query == {"since": "7d", "tz": "Asia/Shanghai"}


def test_usage_passes_filters_and_groups_on(lingpai, api):
    lingpai(
        "usage", "--since", "1d", "--until", "2026-11-20", "--by", "key, model", "--tz", "Europe/Berlin",
        "--user", "alice", "--key", "k", "--model", "lingpai/eliza",
    )  # fmt: skip

    assert api.last.query == {
        "since": "1d", "until": "2026-11-20", "by": "key,model", "tz": "Europe/Berlin",
        "user": "alice", "key": "k", "model": "lingpai/eliza",
    }  # fmt: skip


def test_usage_table_has_a_bar_and_a_total(lingpai, api):
    api.usage = [usage_row(1500, model="lingpai/eliza"), usage_row(750, model="lingpai/sentiment")]

    outcome = lingpai("usage", "--by", "model")

    first, second, total = outcome.stdout.splitlines()[1:]
    assert first.split()[:3] == ["lingpai/eliza", "1,500", "█" * 20]
    assert second.split()[2] == "█" * 10
    assert total.split()[:2] == ["total", "2,250"]


def test_usage_csv_cells_cannot_become_formulas(lingpai, api):
    """A key named like a formula is text in a spreadsheet; numbers stay numbers; lines end in CRLF."""
    api.usage = [usage_row(5, key="=HYPERLINK(1)"), usage_row(2, key='a "quoted", name')]

    outcome = lingpai("usage", "--by", "key", "--csv")

    rows = list(csv.reader(outcome.stdout.splitlines(keepends=True)))
    columns = "key requests prompt_tokens completion_tokens cost errors refused currency"
    assert rows[0] == columns.split()
    assert rows[1][:2] == ["'=HYPERLINK(1)", "5"]
    assert rows[2][0] == 'a "quoted", name'
    assert outcome.stdout.count("\r\n") == 3


@pytest.mark.parametrize("arguments", [["--by", "colour"], ["--csv", "--json"]])
def test_usage_refuses_what_it_does_not_know(lingpai, api, arguments):
    outcome = lingpai("usage", *arguments)

    assert outcome.returncode == 2
    assert api.requests == []


def test_models_list_with_a_key_that_only_calls(lingpai, remote, signed_in):
    """Without models:read there is what the key may call: id and task."""
    remote.faults["GET", "/api/v1/models"] = error(403, "insufficient_scope", "The key lacks models:read.")
    own = {"id": "lingpai/eliza", "object": "model", "task": "chat", "created": 1, "owned_by": "lingpai"}
    remote.faults["GET", "/v1/models"] = Answer(body={"object": "list", "data": [own]})

    table = lingpai("models", "list", environment=signed_in)
    as_json = lingpai("models", "list", "--json", environment=signed_in)

    assert table.returncode == 0
    assert table.stdout.splitlines()[1].split()[:2] == ["lingpai/eliza", "chat"]
    assert "models:read" in table.stderr
    assert json.loads(as_json.stdout) == [{"id": "lingpai/eliza", "task": "chat"}]


def test_models_list_refused_for_another_reason_is_refused(lingpai, remote, signed_in):
    remote.faults["GET", "/api/v1/models"] = error(403, "ip_not_allowed", "Not from this address.")

    assert lingpai("models", "list", environment=signed_in).returncode == 4


def test_usage_says_its_period_in_the_zone_asked_for(lingpai, api):
    """The server's end is the end of the hour; what is still to come was not used."""
    now = datetime.now(UTC).replace(microsecond=0)
    frame = {
        "since": "2026-01-01T00:00:00Z",
        "until": (now + timedelta(hours=5)).isoformat(),
        "tz": "Asia/Tokyo",
    }
    api.faults["GET", "/api/v1/usage"] = Answer(body={"data": [usage_row(3)], **frame, "by": []})

    outcome = lingpai("usage", "--tz", "Asia/Tokyo")

    since, _, end = outcome.stderr.strip().partition(" to ")
    until = datetime.strptime(end[:16], "%Y-%m-%d %H:%M").replace(tzinfo=ZoneInfo("Asia/Tokyo"))
    assert since == "2026-01-01 09:00"
    assert end[16:] == ", days and hours in Asia/Tokyo."
    assert abs(until - now) < timedelta(minutes=3)
