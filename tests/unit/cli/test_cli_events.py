"""`lingpai events`, as processes against a server on admin.sock."""

import json

import pytest

from tests.fakes.management_api import NOW, Answer

DELIVERED = {"webhook": "hooks.example-1f0c9a3b", "state": "delivered", "attempts": 1}
EVENT = {
    "id": "evt_1", "type": "limit.threshold", "occurred_at": NOW, "message": "80 % is used.", "subject": "key",
    "subject_id": "k", "data": {"percent": 80},
    "webhooks": [DELIVERED, DELIVERED, {**DELIVERED, "state": "given_up"}],
}  # fmt: skip


def test_list_passes_filters_on_and_shows_how_deliveries_went(lingpai, api):
    api.faults["GET", "/api/v1/events"] = Answer(body={"data": [EVENT], "next_cursor": None})

    outcome = lingpai("events", "list", "--type", "limit.threshold", "--since", "7d", "--limit", "5")

    assert api.last.query == {"type": "limit.threshold", "since": "7d", "limit": "5"}
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["when", "type", "webhooks", "message"]
    assert "2 delivered, 1 given up  80 % is used." in lines[1]
    assert "2026-11-20 16:00" in lines[1]


def test_list_json_is_a_plain_list(lingpai, api):
    api.faults["GET", "/api/v1/events"] = Answer(body={"data": [EVENT], "next_cursor": None})

    outcome = lingpai("events", "list", "--json")

    assert json.loads(outcome.stdout) == [EVENT]
    assert api.last.query == {"limit": "50"}


def test_nothing_happened_is_said_in_words(lingpai, api):
    api.faults["GET", "/api/v1/events"] = Answer(body={"data": [], "next_cursor": None})

    outcome = lingpai("events", "list")

    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert outcome.stderr


@pytest.mark.parametrize(("is_ok", "code"), [(True, 0), (False, 1)])
def test_trial_shows_each_webhook_and_fails_when_one_failed(lingpai, api, is_ok, code):
    good = {"webhook": "a.example-1", "ok": True, "status": 200, "detail": "status 200", "ms": 1.5}
    other = {"webhook": "b.example-2", "ok": is_ok, "status": None, "detail": "cannot connect", "ms": 2.0}
    api.faults["POST", "/api/v1/events/test-webhook"] = Answer(body={"data": [good, other]})

    outcome = lingpai("events", "test-webhook")

    assert outcome.returncode == code
    assert ["✓", "a.example-1", "status", "200", "1.5"] in [
        line.split() for line in outcome.stdout.splitlines()
    ]


def test_trial_without_webhooks_says_how_to_add_one(lingpai, api):
    api.faults["POST", "/api/v1/events/test-webhook"] = Answer(body={"data": []})

    outcome = lingpai("events", "test-webhook")

    assert outcome.returncode == 1
    assert "[[events.webhooks]]" in outcome.stderr
