"""`lingpai projects`, and keys of projects, as processes against a server on admin.sock."""

import json

import pytest

from tests.fakes.management_api import NOW, Answer, error

SEARCH = {
    "id": "prj_1", "name": "Data Science", "owner": "alice", "personal": False, "limits": ["10/1s"],
    "created_at": NOW, "role": "admin",
}  # fmt: skip
OWN = {**SEARCH, "id": "prj_2", "name": "alice", "personal": True, "limits": []}


@pytest.fixture
def projects(api):
    api.faults["POST", "/api/v1/projects"] = Answer(201, SEARCH)
    api.faults["GET", "/api/v1/projects"] = Answer(body={"data": [OWN, SEARCH], "next_cursor": None})
    api.faults["GET", "/api/v1/projects/Data%20Science"] = Answer(body=SEARCH)
    return api


def test_create_passes_everything_on_and_says_how_to_go_on(lingpai, projects):
    outcome = lingpai(
        "projects", "create", "Data Science", "--owner", "alice", "--limit", "10/1s", "--limit", "5/day"
    )

    assert projects.last.body == {"name": "Data Science", "owner": "alice", "limits": ["10/1s", "5/day"]}
    assert outcome.stdout == ""
    assert "Made project Data Science of alice: 10/1s." in outcome.stderr
    assert "lingpai keys create NAME --project 'Data Science'" in outcome.stderr


def test_create_sends_only_what_was_said(lingpai, projects):
    outcome = lingpai("projects", "create", "search", "--json")

    assert projects.last.body == {"name": "search"}
    assert json.loads(outcome.stdout) == SEARCH


def test_list_is_a_table_or_json(lingpai, projects):
    table = lingpai("projects", "list")
    as_json = lingpai("projects", "list", "--json")

    lines = table.stdout.splitlines()
    assert lines[0].split() == ["name", "owner", "kind", "your", "role", "limits", "created", "id"]
    assert lines[1].split()[:4] == ["alice", "alice", "personal", "admin"]
    assert "shared    admin      10/1s" in lines[2]
    assert json.loads(as_json.stdout) == [OWN, SEARCH]


def test_show_takes_names_with_blanks(lingpai, projects):
    outcome = lingpai("projects", "show", "Data Science")

    assert ["owner", "alice"] in [line.split() for line in outcome.stdout.splitlines()]
    assert ["limits", "10/1s"] in [line.split() for line in outcome.stdout.splitlines()]


def test_list_passes_filters_on(lingpai, projects):
    lingpai("projects", "list", "--search", "da", "--user", "bob")

    assert projects.last.query == {"search": "da", "user": "bob", "limit": "200"}


def test_rename(lingpai, projects):
    projects.faults["PATCH", "/api/v1/projects/Data%20Science"] = Answer(body={**SEARCH, "name": "find"})

    outcome = lingpai("projects", "rename", "Data Science", "find")

    assert projects.last.body == {"name": "find"}
    assert "Project Data Science is find now." in outcome.stderr


@pytest.mark.parametrize(("flags", "query"), [(("--yes",), {}), (("--yes", "--force"), {"force": "true"})])
def test_delete_takes_force_for_what_belongs_to_it(lingpai, projects, flags, query):
    projects.faults["DELETE", "/api/v1/projects/prj_1"] = Answer(204)

    outcome = lingpai("projects", "delete", "Data Science", *flags)

    assert outcome.returncode == 0, outcome.stderr
    assert (projects.last.method, projects.last.query) == ("DELETE", query)
    assert "Deleted project Data Science (prj_1)." in outcome.stderr


def test_delete_asks_before(lingpai, projects):
    outcome = lingpai("projects", "delete", "Data Science")

    assert outcome.returncode == 2
    assert "needs --yes" in outcome.stderr
    assert projects.last.method == "GET"


def test_refusal_is_told(lingpai, api):
    api.faults["GET", "/api/v1/projects/x"] = error(404, "not_found", "There is no project `x`.")

    outcome = lingpai("projects", "show", "x")

    assert outcome.returncode == 1
    assert "There is no project `x`." in outcome.stderr


def test_keys_are_made_in_listed_by_and_shown_with_their_project(lingpai, api):
    lingpai("keys", "create", "indexer", "--project", "search")
    made = api.last.body
    lingpai("keys", "list", "--project", "search")
    query = api.last.query
    shown = lingpai("keys", "show", "indexer")

    assert made == {"name": "indexer", "project": "search"}
    assert query["project"] == "search"
    assert ["project", "search"] in [line.split() for line in shown.stdout.splitlines()]
