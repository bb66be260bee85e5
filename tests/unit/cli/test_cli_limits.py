"""`lingpai limits`, as processes against a server on admin.sock."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.management_api import Answer, error

EXPLAIN = "/api/v1/limits/explain"


def in_hours(hours):
    """An ISO time from now, with half a minute to spare for a slow machine."""
    moment = datetime.now(UTC) + timedelta(hours=hours, seconds=30)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def line(limit, *, used=0, remaining=0, **fields):
    base = {
        "subject": "key", "id": "k1", "name": "my-app", "limit": limit, "unit": "requests", "source": "set",
        "used": used, "reserved": 0, "remaining": remaining, "resets_at": "2026-11-20T16:00:00Z", "waits_s": 0,
        "applies": True, "why": "Set on key `my-app`.",
    }  # fmt: skip
    return {**base, **fields}


def explanation(*lines, unlimited=(), summary="The tightest is this one."):
    return Answer(
        body={
            "key": {"id": "k1", "name": "my-app"},
            "user": {"id": "usr_1", "name": "alice"},
            "project": None,
            "client": None,
            "model": None,
            "data": list(lines),
            "unlimited": [
                {"subject": "user", "id": "x", "name": "x", "why": f"{who}: no limit"} for who in unlimited
            ],
            "tightest": None,
            "summary": summary,
        }
    )


# -- set


def test_limits_set_and_list(lingpai, api):
    done = lingpai("limits", "set", "key", "my-app", "2000/day@Asia/Shanghai", "10/1s")

    assert api.last.body == {"subject": "key", "id": "my-app", "limits": ["2000/day@Asia/Shanghai", "10/1s"]}
    assert "1,997" in done.stdout
    assert "2026-11-21 00:00" in done.stdout


@pytest.mark.parametrize("subject", ["client", "user", "project", "model"])
def test_limits_set_takes_any_subject_and_unit(lingpai, api, subject):
    limits = ["100000 tokens/day", "5 USD/month", "8 concurrent wait 30s"]

    lingpai("limits", "set", subject, "search", *limits)

    assert api.last.body == {"subject": subject, "id": "search", "limits": limits}


@pytest.mark.parametrize("user", ["alice", "*"])
def test_limits_of_a_user_on_a_model_take_two_names(lingpai, api, user):
    lingpai("limits", "set", "user-model", user, "acme/chat", "100/day")

    assert api.last.body == {
        "subject": "user_model",
        "user": user,
        "model": "acme/chat",
        "limits": ["100/day"],
    }


def test_limits_set_none_takes_them_away(lingpai, api):
    outcome = lingpai("limits", "set", "user", "alice", "none")

    assert api.last.body["limits"] == []
    assert "no limits now" in outcome.stderr


def test_limits_set_default_takes_back_what_was_set(lingpai, api):
    api.faults["PUT", "/api/v1/limits"] = Answer(body={"data": [], "warning": None})

    outcome = lingpai("limits", "set", "model", "acme/chat", "default")

    assert api.last.body == {"subject": "model", "id": "acme/chat", "limits": None}
    assert outcome.stderr == "Model acme/chat has no limits now.\n"


def test_limits_set_passes_a_warning_on(lingpai, api):
    warning = "There is no model `acme/chta` now; its limits hold once there is. Did you mean `acme/chat`?"
    rows = [line("5/day", subject="model", name="acme/chta", remaining=5)]
    api.faults["PUT", "/api/v1/limits"] = Answer(body={"data": rows, "warning": warning})

    outcome = lingpai("limits", "set", "model", "acme/chta", "5/day")

    assert (outcome.returncode, outcome.stderr) == (0, f"{warning}\n")
    assert "acme/chta" in outcome.stdout


@pytest.mark.parametrize(
    "arguments", [["user", "alice"], ["user-model", "alice"], ["user-model", "alice", "acme/chat"]]
)
def test_limits_set_without_a_limit_changes_nothing(lingpai, api, arguments):
    outcome = lingpai("limits", "set", *arguments)

    assert outcome.returncode == 2
    assert "at least one limit" in outcome.stderr
    assert api.requests == []


# -- list


@pytest.mark.parametrize("subject", ["key", "client", "user", "project", "model"])
def test_limits_list_filters(lingpai, api, subject):
    outcome = lingpai("limits", "list", f"--{subject}", "alice", "--json")

    assert json.loads(outcome.stdout) == []
    assert api.last.query == {subject: "alice"}


def test_limits_list_reads_every_page(lingpai, api):
    first = {"data": [line("5/day")], "next_cursor": "abc"}
    api.faults["GET", "/api/v1/limits"] = Answer(body=first)
    answer = api.answer

    def next_page(request):
        found = answer(request)
        return Answer(body={"data": [line("7/day")], "next_cursor": None}) if request.query else found

    api.answer = next_page

    outcome = lingpai("limits", "list", "--json")

    assert [row["limit"] for row in json.loads(outcome.stdout)] == ["5/day", "7/day"]


def test_limits_for_each_user_are_listed_without_a_count(lingpai, api):
    each = {"used": None, "reserved": None, "remaining": None, "resets_at": None}
    api.limits = [line("5/day", subject="user_model", name="each user on acme/chat") | each]

    outcome = lingpai("limits", "list")

    assert outcome.stdout.splitlines()[1].split() == [
        "user-model", "each", "user", "on", "acme/chat", "5/day", "–", "–", "–",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "No limits are set."),
        (
            ["list", "--key", "k"],
            "Key k has no limits of its own; `lingpai limits explain k` shows what applies to it.",
        ),
        (
            ["list", "--client", "nightly"],
            "Client nightly has no limits of its own; `lingpai limits explain --client nightly` shows what applies to it.",
        ),
        (["list", "--user", "alice"], "User alice has no limits."),
        (["list", "--model", "acme/chat"], "Model acme/chat has no limits."),
        (
            ["set", "key", "k", "none"],
            "Key k has no limits of its own now; `lingpai limits explain k` shows what applies to it.",
        ),
        (["set", "project", "search", "none"], "Project search has no limits now."),
    ],
)
def test_without_limits_it_says_what_may_apply(lingpai, api, arguments, words):
    outcome = lingpai("limits", *arguments)

    assert (outcome.stdout, outcome.stderr) == ("", f"{words}\n")


# -- explain


def test_explain_shows_what_is_left_as_a_bar_and_when_it_resets(lingpai, api):
    limit = line("2000/day@Asia/Shanghai", used=500, remaining=1500, resets_at=in_hours(8))
    api.faults["GET", EXPLAIN] = explanation(limit)

    outcome = lingpai("limits", "explain", "my-app", "--model", "acme/chat")

    header, row = outcome.stdout.splitlines()[:2]
    assert api.last.query == {"key": "my-app", "model": "acme/chat"}
    assert header.split() == ["for", "limit", "left", "of", "it", "used", "held", "resets"]
    assert row.split()[:7] == ["key", "my-app", "2000/day@Asia/Shanghai", "1,500", "███████▌", "500", "0"]
    assert row.endswith("(in 8 hours)")


def test_explain_says_why_for_every_limit_and_who_has_none(lingpai, api):
    why = "Set on key `my-app`; it counts the calls with this key. 5 of 5 requests left."
    api.faults["GET", EXPLAIN] = explanation(
        line("5/day", remaining=5, why=why), unlimited=["user `alice`", "model `acme/chat`"]
    )

    outcome = lingpai("limits", "explain", "my-app")

    assert f"key my-app, 5/day  {why}" in outcome.stdout
    assert outcome.stdout.splitlines()[-2:] == ["user alice: no limit", "model acme/chat: no limit"]
    assert outcome.stderr == "The tightest is this one.\n"


def test_explain_shows_money_tokens_and_places(lingpai, api):
    api.faults["GET", EXPLAIN] = explanation(
        line("5 USD/month", unit="USD", used="2.5", remaining="2.5", reserved="0.25"),
        line("100000 tokens/day", unit="tokens", used=120_000, remaining=0),
        line("8 concurrent", unit="concurrent", used=0, remaining=8, resets_at=None),
    )

    money, tokens, places = lingpai("limits", "explain", "my-app").stdout.splitlines()[1:4]

    assert money.split()[4:8] == ["2.5", "█" * 5, "2.5", "0.25"]
    assert tokens.split()[4:7] == ["0", "120,000", "0"]
    assert places.split()[4:6] == ["8", "█" * 10]
    assert places.endswith("when a call ends")


def test_explain_says_which_limit_does_not_count(lingpai, api):
    limit = line("5 CNY/day", unit="CNY", used="0", remaining="5", applies=False)
    api.faults["GET", EXPLAIN] = explanation(limit)

    row = lingpai("limits", "explain", "my-app", "--model", "acme/chat").stdout.splitlines()[1]

    assert "does not count" in row


def test_explain_without_limits(lingpai, api):
    api.faults["GET", EXPLAIN] = explanation(unlimited=["key `my-app`"], summary="No limit applies.")

    outcome = lingpai("limits", "explain", "my-app")

    assert (outcome.stdout, outcome.stderr) == ("key my-app: no limit\n", "No limit applies.\n")


def test_explain_as_json_is_the_answer(lingpai, api):
    answer = explanation(line("5/day", remaining=5))
    api.faults["GET", EXPLAIN] = answer

    assert json.loads(lingpai("limits", "explain", "my-app", "--json").stdout) == answer.body


def test_explain_without_a_key_is_about_the_one_that_asks(lingpai, remote, signed_in):
    remote.faults["GET", EXPLAIN] = explanation(line("5/day", remaining=5))

    outcome = lingpai("limits", "explain", environment=signed_in)

    assert outcome.returncode == 0
    assert remote.last.query == {}


def test_explain_of_a_client(lingpai, api):
    api.faults["GET", EXPLAIN] = explanation(line("5/day", remaining=5))

    outcome = lingpai("limits", "explain", "--client", "nightly", "--model", "acme/chat")

    assert outcome.returncode == 0
    assert api.last.query == {"client": "nightly", "model": "acme/chat"}


def test_explain_is_about_a_key_or_a_client(lingpai, api):
    outcome = lingpai("limits", "explain", "my-app", "--client", "nightly")

    assert (outcome.returncode, api.requests) == (2, [])


def test_explain_of_a_model_that_the_key_may_not_call_is_refused(lingpai, api):
    api.faults["GET", EXPLAIN] = error(403, "model_not_allowed", "Key `my-app` may not call `acme/chat`.")

    outcome = lingpai("limits", "explain", "my-app", "--model", "acme/chat")

    assert outcome.returncode == 4
    assert "may not call" in outcome.stderr
