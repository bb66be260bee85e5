"""`lingpai projects members`, as a process against a server on admin.sock."""

import json

import pytest

from tests.fakes.management_api import NOW, Answer, error

ADA = {"id": "usr_1", "user": "ada", "role": "admin", "disabled": False, "since": NOW}
BOB = {"id": "usr_2", "user": "bob", "role": "viewer", "disabled": True, "since": NOW}
PATH = "/api/v1/projects/Data%20Science/members"


@pytest.fixture
def members(api):
    api.faults["GET", PATH] = Answer(body={"data": [ADA, BOB], "next_cursor": None})
    api.faults["POST", PATH] = Answer(201, BOB)
    api.faults["PATCH", f"{PATH}/bob"] = Answer(body={**BOB, "role": "admin"})
    api.faults["DELETE", f"{PATH}/bob"] = Answer(204)
    return api


def test_list_is_a_table_or_json(lingpai, members):
    table = lingpai("projects", "members", "list", "Data Science")
    as_json = lingpai("projects", "members", "list", "Data Science", "--json")

    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[0] == ["user", "role", "state", "since", "id"]
    assert lines[1][:3] == ["ada", "admin", "active"]
    assert lines[2][:3] == ["bob", "viewer", "disabled"]
    assert json.loads(as_json.stdout) == [ADA, BOB]


def test_add_takes_a_role_and_makes_members_without_one(lingpai, members):
    outcome = lingpai("projects", "members", "add", "Data Science", "bob", "--role", "viewer")
    asked = members.last.body
    lingpai("projects", "members", "add", "Data Science", "bob")

    assert asked == {"user": "bob", "role": "viewer"}
    assert members.last.body == {"user": "bob", "role": "member"}
    assert "bob has the role viewer in Data Science now." in outcome.stderr


def test_set_changes_the_role(lingpai, members):
    outcome = lingpai("projects", "members", "set", "Data Science", "bob", "admin")

    assert members.last.body == {"role": "admin"}
    assert "bob has the role admin in Data Science now." in outcome.stderr


def test_role_must_be_one(lingpai, members):
    outcome = lingpai("projects", "members", "set", "Data Science", "bob", "owner")

    assert outcome.returncode == 2
    assert not members.requests


def test_remove(lingpai, members):
    outcome = lingpai("projects", "members", "remove", "Data Science", "bob", "--json")

    assert members.last.method == "DELETE"
    assert json.loads(outcome.stdout) == {"user": "bob", "removed": True}
    assert "bob is no member of Data Science any more." in outcome.stderr


def test_who_is_not_there_is_told_with_a_command_that_helps(lingpai, api):
    words = "`search` has no member `bob`. `GET /api/v1/projects/{id}/members` lists them."
    api.faults["DELETE", "/api/v1/projects/search/members/bob"] = error(404, "not_found", words)

    outcome = lingpai("projects", "members", "remove", "search", "bob")

    assert outcome.returncode == 1
    assert "`lingpai projects members list PROJECT` lists them." in outcome.stderr
