"""``GET /api/v1/usage``: names, own usage only, honest about what may be missing."""

import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lingpai.metering.loader import SqliteLoader
from lingpai.metering.routes import usage_routes
from lingpai.metering.service import UsageReport
from lingpai.metering.store import SqlUsageStore
from lingpai.principal import Principal
from lingpai.web.errors import install_error_handlers

ADMIN = Principal("usr_root", "admin", "admin", scopes=frozenset({"usage:read"}))
BOB = Principal("usr_bob", "bob", "member", key_id="bobs", scopes=frozenset({"usage:read"}))


class Names:
    """Two users with one key each; one more key is in the records only."""

    def __init__(self):
        self.keys = {"4fK3aaaaaaaa": ("laptop", "usr_ada"), "bobs": ("batch", "usr_bob")}
        self.users = {"usr_ada": "ada", "usr_bob": "bob"}

    def key_names(self, key_ids):
        return {key_id: self.keys[key_id][0] for key_id in key_ids if key_id in self.keys}

    def user_names(self, user_ids):
        return {user_id: self.users[user_id] for user_id in user_ids if user_id in self.users}

    def find_key(self, text, *, user_id):
        found = [
            id_
            for id_, (name, owner) in self.keys.items()
            if text in (id_, name) and user_id in (None, owner)
        ]
        return found[0] if found else None

    def find_user(self, text):
        return next((id_ for id_, name in self.users.items() if text in (id_, name)), None)


@pytest.fixture
def get(database, database_path, make_record):
    """Asks as an administrator unless told otherwise; the answer's status and body."""
    now = time.time()
    records = [
        make_record(started_at=now),
        make_record(started_at=now, key_id="bobs", user_id="usr_bob"),
        make_record(started_at=now, key_id="bobs", user_id="usr_bob", status=500),
        make_record(started_at=now, key_id=None),
        make_record(started_at=now, key_id="gone"),
    ]
    loader = SqliteLoader(database_path)
    loader.load(records, (1, 1))
    loader.close()

    def ask(caller=ADMIN, *, arrives=True, **parameters):
        async def authenticate(request):
            return caller

        async def wait():
            return arrives

        app = FastAPI()
        install_error_handlers(app)
        app.state.authenticate = authenticate
        app.include_router(usage_routes(UsageReport(SqlUsageStore(database)), wait, Names()))
        with TestClient(app) as client:
            answer = client.get("/api/v1/usage", params=parameters)
        return answer.status_code, answer.json()

    return ask


def test_a_total_has_the_numbers_and_no_groups(get):
    """And says what it covers."""
    status, body = get()

    assert status == 200
    assert body["data"] == [
        {"requests": 5, "prompt_tokens": 50, "completion_tokens": 100, "cost": 0.0, "errors": 1, "refused": 0}
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
