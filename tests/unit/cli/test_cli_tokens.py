"""`lingpai tokens`, as a process against a server on admin.sock."""

import json

import pytest


def test_list_shows_sign_ins_and_tokens(lingpai, api):
    api.add_token("fam_1", client=None, user_agent="evil\x1b[2Jagent", address="192.0.2.7")
    api.add_token("4fKx0aZ1bC2d", client="nightly")

    outcome = lingpai("tokens", "list")

    lines = outcome.stdout.splitlines()
    assert lines[1].split()[:5] == ["fam_1", "sign-in", "(no", "client)", "alice"]
    assert "evil\\x1b[2Jagent" in lines[1]
    assert lines[2].split()[:4] == ["4fKx0aZ1bC2d", "token", "nightly", "alice"]


def test_list_passes_every_filter_on(lingpai, api):
    lingpai("tokens", "list", "--user", "alice", "--client", "nightly", "--kind", "sign-in")

    assert api.last.query == {"user": "alice", "client": "nightly", "kind": "family", "limit": "200"}


def test_list_goes_on_until_its_limit_and_says_that_there_are_more(lingpai, api):
    api.page_size = 2
    for number in range(9):
        api.add_token(f"fam_{number}")

    some, every = lingpai("tokens", "list", "--limit", "5", "--json"), lingpai("tokens", "list", "--json")

    assert [token["id"] for token in json.loads(some.stdout)] == [f"fam_{number}" for number in range(5)]
    assert "more than these 5" in some.stderr
    assert len(json.loads(every.stdout)) == 9
    assert every.stderr == ""


def test_without_tokens_it_says_so(lingpai, api):
    outcome = lingpai("tokens", "list")

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "No tokens are out.\n")


def test_revoke_ends_one_after_the_other(lingpai, api):
    api.add_token("fam_1")
    api.add_token("fam_2")

    outcome = lingpai("tokens", "revoke", "fam_1", "fam_2", "--json")

    assert outcome.returncode == 0, outcome.stderr
    assert api.tokens == []
    assert json.loads(outcome.stdout) == [{"id": "fam_1", "revoked": True}, {"id": "fam_2", "revoked": True}]


def test_revoke_of_what_is_not_there_fails(lingpai, api):
    outcome = lingpai("tokens", "revoke", "fam_1")

    assert outcome.returncode == 1
    assert "`lingpai tokens list` lists" in outcome.stderr


@pytest.mark.parametrize("arguments", [["revoke"], ["list", "--limit", "0"], ["list", "--kind", "cookie"]])
def test_senseless_commands_ask_nothing(lingpai, api, arguments):
    outcome = lingpai("tokens", *arguments)

    assert (outcome.returncode, api.requests) == (2, [])
