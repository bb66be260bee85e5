"""``/api/v1/requests``: every field, own calls only, pages and exports."""

import csv
import io
import json

import pytest

from lingpai.metering.request_routes import COLUMNS, request_routes
from lingpai.metering.requests import SqlRequestStore
from lingpai.principal import Principal

NOW = 1_800_000_060.0
ADMIN = Principal("usr_root", "admin", "admin", scopes=frozenset({"usage:read"}))
BOB = Principal("usr_bob", "bob", "member", key_id="bobs", scopes=frozenset({"usage:read"}))
BOBS = {"key_id": "bobs", "user_id": "usr_bob", "project_id": "prj_bob"}


@pytest.fixture
def get(database, names, ask):
    """Asks as an administrator unless told otherwise; the raw answer."""

    def request(path="", caller=ADMIN, *, arrives=True, **parameters):
        async def wait():
            return arrives

        router = request_routes(SqlRequestStore(database), wait, names, lambda: NOW)
        return ask(router, caller, f"/api/v1/requests{path}", **parameters)

    return request


def listed(answer):
    return [each["id"] for each in answer.json()["data"]]


def test_a_call_is_shown_with_everything_that_is_known_of_it(get, load):
    """Names beside ids, exact money, times to the millisecond."""
    load({"queued_ms": 250.0, "client_id": "app"})

    answer = get("/req_1", tz="Asia/Shanghai")

    assert answer.json() == {
        "id": "req_1",
        "started_at": "2027-01-15T16:00:00.000+08:00",
        "key": "laptop",
        "key_id": "4fK3aaaaaaaa",
        "client": "nightly",
        "client_id": "app",
        "user": "ada",
        "user_id": "usr_ada",
        "project": "ada",
        "project_id": "prj_ada",
        "model": "lingpai/eliza",
        "backend": "demo",
        "task": "chat",
        "endpoint": "/v1/chat/completions",
        "status": 200,
        "end_reason": "complete",
        "first_byte_ms": 12.5,
        "duration_ms": 45.5,
        "queued_ms": 250.0,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 1,
        "reasoning_tokens": 2,
        "counted": "reported",
        "cost": "0.0000015",
        "currency": "USD",
        "charged": 1,
        "charged_tokens": 30,
        "charged_cost": "0.0000015",
        "retries": 0,
        "client_address": "127.0.0.1",
    }
    assert answer.headers["cache-control"] == "no-store"


def test_what_there_is_none_of_is_null(get, load):
    """A call without a key, of a model that does not exist, without a price."""
    load(
        {"key_id": None, "project_id": "", "model": "", "backend": "", "task": "", "currency": "", "cost": 0}
    )

    call = get("").json()["data"][0]

    nothing = (
        "key",
        "key_id",
        "project",
        "project_id",
        "client",
        "client_id",
        "model",
        "backend",
        "task",
        "cost",
        "currency",
    )
    assert {name: call[name] for name in nothing} == dict.fromkeys(nothing)


def test_pages_lead_to_the_end(get, load):
    """As every list of the management API."""
    load(*({"request_id": f"r{number}"} for number in range(5)))

    first = get("", limit=3)
    second = get("", limit=3, cursor=first.json()["next_cursor"])

    assert (listed(first), listed(second)) == (["r4", "r3", "r2"], ["r1", "r0"])
    assert second.json()["next_cursor"] is None
    assert first.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"since": "30s"}, None),
        ({"since": "1m"}, ["c", "b", "a"]),
        ({"since": "2027-01-15T16:00:30", "tz": "Asia/Shanghai"}, ["c"]),
        ({"until": "2027-01-15T08:00:30"}, ["b", "a"]),
        ({"key": "laptop"}, ["c", "a"]),
        ({"client": "indexer"}, ["b"]),
        ({"client": "bobs-app"}, ["b"]),
        ({"user": "bob"}, ["b"]),
        ({"project": "=bob"}, ["b"]),
        ({"model": "other"}, ["c"]),
        ({"status": "4xx"}, ["b"]),
        ({"status": "200"}, ["c", "a"]),
        ({"end_reason": "refused"}, ["b"]),
        ({"endpoint": "/v1/chat/completions", "request_id": "a"}, ["a"]),
    ],
)
def test_filters_take_names_times_and_classes(get, load, parameters, expected):
    """And a bad one is named."""
    load(
        {"request_id": "a"},
        {"request_id": "b", "status": 429, "end_reason": "refused", "client_id": "bobs-app"} | BOBS,
        {"request_id": "c", "started_at": NOW - 15, "model": "other"},
    )

    answer = get("", **parameters)

    if expected is None:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(parameters)))
    else:
        assert listed(answer) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"status": "6xx"},
        {"status": "4x"},
        {"end_reason": "tired"},
        {"cursor": "x"},
        {"limit": 0},
        {"tz": "Mars"},
    ],
)
def test_bad_parameters_are_named(get, parameters):
    """In the shape of all errors."""
    answer = get("", **parameters)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(parameters)))


def test_a_member_sees_only_their_own(get, load):
    """Another's calls, keys, users and projects do not exist, in the list, alone and in the export."""
    load({"request_id": "adas"}, {"request_id": "bobs"} | BOBS)

    assert listed(get("", BOB)) == ["bobs"]
    assert get("/bobs", BOB).status_code == 200
    assert [json.loads(line)["id"] for line in get("/export", BOB, format="jsonl").text.splitlines()] == [
        "bobs"
    ]
    for path, wishes in (
        ("/adas", {}),
        ("", {"user": "ada"}),
        ("", {"key": "laptop"}),
        ("", {"client": "nightly"}),
        ("/export", {"client": "app"}),
        ("", {"project": "ada"}),
        ("/export", {"project": "prj_ada"}),
    ):
        answer = get(path, BOB, **wishes)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_role_in_a_project_shows_everybodys_calls_in_it(get, load, names):
    """In the list, alone and in the export; the same people's calls elsewhere stay hidden."""
    names.shared["usr_bob"] = ("prj_ada",)
    load(
        {"request_id": "adas"},
        {"request_id": "adas elsewhere", "project_id": "prj_other"},
        {"request_id": "bobs"} | BOBS,
    )

    assert sorted(listed(get("", BOB))) == ["adas", "bobs"]
    assert listed(get("", BOB, user="ada")) == listed(get("", BOB, project="ada")) == ["adas"]
    assert get("/adas", BOB).status_code == 200
    assert get("/adas elsewhere", BOB).status_code == 404
    export = get("/export", BOB, format="jsonl").text.splitlines()
    assert sorted(json.loads(line)["id"] for line in export) == ["adas", "bobs"]


def test_less_than_was_answered_is_never_shown(get):
    """And the scope is needed."""
    stranger = Principal("usr_bob", "bob", "member", scopes=frozenset({"model:inference"}))

    for path in ("", "/export", "/req_1"):
        assert get(path, arrives=False).status_code == 503
        assert get(path, stranger).status_code == 403


def test_an_export_is_csv_that_a_spreadsheet_can_open(get, load):
    """Every field, oldest first, nothing that it would run."""
    load({"request_id": "a", "model": '@SUM(1,"2")'}, {"request_id": "b"} | BOBS)

    answer = get("/export", tz="Asia/Shanghai")

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["model"] == '\'@SUM(1,"2")'
    assert rows[1]["project"] == "'=bob"
    assert rows[0]["started_at"] == "2027-01-15T16:00:00.000+08:00"
    assert answer.headers["content-disposition"] == 'attachment; filename="lingpai-requests.csv"'
    assert answer.headers["cache-control"] == "no-store"


def test_an_export_of_json_lines_has_the_fields_of_the_list(get, load):
    """Word for word, so that one program reads both."""
    load({})

    assert json.loads(get("/export", format="jsonl").text) == get("").json()["data"][0]
