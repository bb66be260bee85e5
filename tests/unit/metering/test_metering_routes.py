"""``GET /api/v1/usage``: names, own usage only, honest about what may be missing."""

import json

import pytest

from lingpai.metering.routes import usage_routes
from lingpai.metering.service import UsageReport
from lingpai.metering.store import SqlUsageStore
from lingpai.principal import Principal

NOW = 1_800_000_060.0
ADMIN = Principal("usr_root", "admin", "admin", scopes=frozenset({"usage:read"}))
BOB = Principal("usr_bob", "bob", "member", key_id="bobs", scopes=frozenset({"usage:read"}))


@pytest.fixture
def get_raw(database, load, names, ask):
    """Asks as an administrator unless told otherwise; the raw answer."""
    bob = {"key_id": "bobs", "user_id": "usr_bob", "project_id": "prj_bob"}
    load(
        {},
        bob | {"currency": "CNY"},
        bob | {"status": 500, "currency": "", "cost": 0, "charged_cost": 0},
        {"key_id": None, "project_id": ""},
        {"key_id": "gone"},
    )

    def get(path, caller=ADMIN, *, arrives=True, **parameters):
        async def wait():
            return arrives

        report = UsageReport(SqlUsageStore(database), clock=lambda: NOW, max_rows=4)
        return ask(usage_routes(report, wait, names), caller, path, **parameters)

    return get


@pytest.fixture
def get(get_raw):
    """The same for the report; its status and body."""

    def ask_report(caller=ADMIN, **parameters):
        answer = get_raw("/api/v1/usage", caller, **parameters)
        return answer.status_code, answer.json()

    return ask_report


def test_a_total_has_the_numbers_and_no_groups(get):
    """And says what it covers."""
    status, body = get()

    assert status == 200
    assert body["data"] == [
        {
            "requests": 5,
            "prompt_tokens": 50,
            "completion_tokens": 100,
            "cost": None,
            "errors": 1,
            "refused": 0,
            "currency": None,
            "costs": {"USD": "0.0000045", "CNY": "0.0000015"},
            "cached_tokens": 5,
            "reasoning_tokens": 10,
            "charged": 5,
            "charged_tokens": 150,
            "charged_costs": {"USD": "0.0000045", "CNY": "0.0000015"},
        }
    ]
    assert (body["tz"], body["by"]) == ("UTC", [])
    assert body["since"].endswith("Z")
    assert body["until"].endswith("Z")


def test_groups_carry_names(get):
    """A call without a key has none; a key nobody knows keeps its id."""
    _, body = get(by="key,user")

    groups = [(row["key"], row["key_id"], row["user"]) for row in body["data"]]
    assert groups[0] == ("batch", "bobs", "bob")
    assert sorted(groups[1:], key=str) == [
        ("gone", "gone", "ada"),
        ("laptop", "4fK3aaaaaaaa", "ada"),
        (None, None, "ada"),
    ]


def test_filters_take_names_and_ids(get):
    """As everywhere in the management API."""
    for parameters in ({"key": "batch"}, {"key": "bobs"}, {"user": "bob"}, {"user": "usr_bob"}):
        assert get(**parameters)[1]["data"][0]["requests"] == 2
    assert get(model="other")[1]["data"][0]["requests"] == 0


def test_a_member_sees_only_their_own(get):
    """Another's keys and users do not exist."""
    assert get(BOB)[1]["data"][0]["requests"] == 2
    assert [row["user"] for row in get(BOB, by="user")[1]["data"]] == ["bob"]
    assert get(BOB, user="bob")[0] == get(BOB, key="batch")[0] == 200
    for parameters in ({"user": "ada"}, {"key": "laptop"}, {"key": "4fK3aaaaaaaa"}, {"user": "nobody"}):
        status, body = get(BOB, **parameters)
        assert (status, body["error"]["code"]) == (404, "not_found")
        assert all(f"`{name}`" in body["error"]["message"] for name in parameters.values())


def test_a_role_in_a_project_shows_everybodys_usage_in_it(get, names):
    """And nothing of the same people elsewhere, nor of others."""
    names.shared["usr_bob"] = ("prj_ada",)

    rows = get(BOB, by="user,project")[1]["data"]

    # ada's calls with another project, or none, stay hidden
    assert [(row["user"], row["project"], row["requests"]) for row in rows] == [
        ("ada", "ada", 2),
        ("bob", "=bob", 2),
    ]
    for parameters in ({"user": "ada"}, {"project": "ada"}, {"user": "ada", "project": "ada"}):
        assert get(BOB, **parameters)[1]["data"][0]["requests"] == 2
    assert get(BOB, user="bob")[1]["data"][0]["requests"] == 2
    assert get(BOB, user="bob", project="ada")[1]["data"][0]["requests"] == 0


def test_the_scope_is_needed(get):
    """Calling models gives no right to see who uses what."""
    status, body = get(Principal("usr_bob", "bob", "member", scopes=frozenset({"model:inference"})))

    assert (status, body["error"]["code"]) == (403, "insufficient_scope")


def test_less_than_was_answered_is_never_shown(get):
    """The ingester did not arrive in time: no figures rather than wrong ones."""
    status, body = get(arrives=False)

    assert (status, body["error"]["code"]) == (503, "storage_unavailable")


@pytest.mark.parametrize("parameters", [{"by": "keys"}, {"tz": "Asia"}, {"since": "soon"}, {"tz": "x" * 500}])
def test_bad_parameters_are_named(get, parameters):
    """In the shape of all errors."""
    status, body = get(**parameters)

    assert status == 400
    assert body["error"]["code"] == "invalid_request"
    assert body["error"]["param"] == next(iter(parameters))


def test_the_cost_is_a_number_in_its_currency(get):
    """Of the exact decimal, which stands beside it; nothing without a price; none that mixes currencies."""
    costs = {
        row["user"]: (row["cost"], row["currency"])
        for row in get(by="user", model="lingpai/eliza")[1]["data"]
    }

    assert costs == {"ada": (0.0000045, "USD"), "bob": (0.0000015, "CNY")}
    assert get(model="other")[1]["data"][0]["cost"] == 0


def test_projects_group_and_filter_as_keys_do(get):
    """By name; a call without a project has none; another's does not exist."""
    rows = get(by="project")[1]["data"]

    assert [(row["project"], row["project_id"], row["requests"]) for row in rows] == [
        ("ada", "prj_ada", 2),
        ("=bob", "prj_bob", 2),
        (None, None, 1),
    ]
    assert get(project="ada")[1]["data"][0]["requests"] == 2
    assert get(BOB, project="prj_bob")[1]["data"][0]["requests"] == 2
    assert get(BOB, project="ada")[0] == get(project="none")[0] == 404


def test_clients_group_and_filter_as_keys_do(get, get_raw, load):
    """Calls with access tokens have a client and no key; one that was deleted long ago keeps its id."""
    load(*[{"key_id": None, "client_id": "app"}] * 3, {"key_id": None, "client_id": "gone"})
    load({"key_id": None, "client_id": "bobs-app", "user_id": "usr_bob"})

    _, body = get(by="client")

    groups = {(row["client"], row["client_id"]): row["requests"] for row in body["data"]}
    assert groups == {(None, None): 5, ("nightly", "app"): 3, ("gone", "gone"): 1, ("indexer", "bobs-app"): 1}
    assert get(client="nightly")[1]["data"][0]["requests"] == get(client="app")[1]["data"][0]["requests"] == 3
    assert get(BOB, client="indexer")[1]["data"][0]["requests"] == 1
    assert get(BOB, client="nightly")[0] == get(BOB, client="app")[0] == 404
    exported = get_raw("/api/v1/usage/export", by="client", client="nightly").text.splitlines()
    assert exported[0].startswith("client,client_id,requests,")
    assert exported[1].startswith("nightly,app,3,")


def test_a_report_that_is_too_long_is_refused_and_not_cut(get, load):
    """Its reader would take a part for the whole."""
    assert get(by="key,user")[0] == 200
    load({"key_id": "fifth"})

    status, body = get(by="key,user")

    assert (status, body["error"]["param"]) == (400, "by")
    assert "/api/v1/usage/export" in body["error"]["message"]


def test_an_export_has_no_bound(get_raw, load):
    """The rows of the report, with exact money."""
    load(*({"key_id": f"key{number}"} for number in range(1200)))

    answer = get_raw("/api/v1/usage/export", by="key,day", format="jsonl")

    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == 1204
    assert rows[0] | {"day": "2027-01-15"} == rows[0]
    assert (rows[0]["cost_usd"], rows[0]["cost_cny"]) == ("0", "0.0000015")
    assert answer.headers["cache-control"] == "no-store"


def test_an_export_can_be_opened_in_a_spreadsheet(get_raw):
    """A header, no formulas, and a byte order mark where it is wanted."""
    answer = get_raw("/api/v1/usage/export", by="project", bom="true")

    lines = answer.content.decode("utf-8-sig").split("\r\n")
    assert answer.content.startswith(b"\xef\xbb\xbfproject,project_id,requests,errors,refused,charged,")
    assert lines[2].startswith("'=bob,prj_bob,2,1,0,2,")
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-disposition"] == 'attachment; filename="lingpai-usage.csv"'


def test_an_export_shows_a_member_their_own_only(get_raw):
    """And nobody less than what was answered."""
    own = get_raw("/api/v1/usage/export", BOB, by="user", format="jsonl").text.splitlines()

    assert [json.loads(line)["user"] for line in own] == ["bob"]
    assert get_raw("/api/v1/usage/export", arrives=False).status_code == 503
    assert get_raw("/api/v1/usage/export", format="xlsx").status_code == 400
