"""`/api/v1/targets`, and the provider's key of a new target: write-only, for administrators."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lingpai.catalog.interfaces import KeptKey, KeptTarget
from lingpai.catalog.routes import management_routes
from lingpai.catalog.schemas import NewTarget, TargetKey
from lingpai.catalog.service import Catalog
from lingpai.catalog.target_routes import target_routes
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.principal import Principal
from lingpai.web.document import serve_document
from lingpai.web.errors import install_error_handlers

NOW = 1_795_000_000.0
KEY = "canary-provider-key-x7Qa"
TARGET = "https://api.example.com/v1"


class Targets:
    """What the routes ask for, noted."""

    def __init__(self):
        self.asked = []

    async def add(self, caller, target, *, is_local, api_key=None):
        self.asked.append((target, api_key))
        return []

    async def kept(self):
        return [
            (KeptTarget(TARGET, NOW, KeptKey("…x7Qa", NOW + 5)), ["m"]),
            (KeptTarget("http://127.0.0.1:1/v1", NOW), None),
        ]

    async def put_key(self, caller, target, api_key):
        self.asked.append((target, api_key))


@pytest.fixture
def targets():
    return Targets()


@pytest.fixture
def ask(targets):
    app = FastAPI(openapi_url=None)
    app.include_router(management_routes(Catalog(), targets))
    app.include_router(target_routes(targets))
    serve_document(app)
    install_error_handlers(app)
    client = TestClient(app)

    def ask(method, path, json=None, *, role="admin", scopes=ALL_SCOPES):
        async def authenticate(request):
            return Principal("usr_1", "ada", role, scopes=frozenset(scopes))

        app.state.authenticate = authenticate
        answer = client.request(method, path, json=json)
        return answer.status_code, answer.json() if answer.content else None

    return ask


def test_list_has_the_ends_of_keys_and_since_when(ask):
    status, body = ask("GET", "/api/v1/targets")

    assert status == 200
    assert body["data"] == [
        {
            "target": TARGET,
            "added_at": "2026-11-18T11:06:40Z",
            "is_served": True,
            "models": ["m"],
            "api_key": {"hint": "…x7Qa", "set_at": "2026-11-18T11:06:45Z"},
        },
        {
            "target": "http://127.0.0.1:1/v1",
            "added_at": "2026-11-18T11:06:40Z",
            "is_served": False,
            "models": [],
            "api_key": None,
        },
    ]


def test_key_is_handed_on_without_the_line_break_of_its_file(ask, targets):
    added = ask("POST", "/api/v1/models", {"target": TARGET, "api_key": f"{KEY}\n"})
    replaced = ask("PUT", "/api/v1/targets/key", {"target": TARGET, "api_key": f" {KEY}"})
    removed = ask("PUT", "/api/v1/targets/key", {"target": TARGET, "api_key": None})

    assert (added, replaced, removed) == ((201, {"data": []}), (204, None), (204, None))
    assert targets.asked == [(TARGET, KEY), (TARGET, KEY), (TARGET, None)]


@pytest.mark.parametrize(
    "key",
    ["", "  ", "canary key", "canary\r\nx-evil: 1", "canary\x00", "canary-令牌", "c" * 4097, 1, ["canary"]],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/models"), ("PUT", "/api/v1/targets/key")])
def test_what_is_no_key_is_refused_without_being_repeated(ask, targets, method, path, key):
    status, body = ask(method, path, {"target": TARGET, "api_key": key})

    assert (status, body["error"]["param"]) == (400, "api_key")
    assert "canary" not in str(body)
    assert targets.asked == []


@pytest.mark.parametrize(
    "body",
    [{"target": TARGET}, {"api_key": KEY}, {"target": TARGET, "api_key": KEY, "base_url": "https://x"}],
)
def test_key_and_target_come_together_and_with_nothing_else(ask, targets, body):
    assert ask("PUT", "/api/v1/targets/key", body)[0] == 400
    assert targets.asked == []


@pytest.mark.parametrize(
    ("method", "path", "json"),
    [
        ("GET", "/api/v1/targets", None),
        ("PUT", "/api/v1/targets/key", {"target": TARGET, "api_key": KEY}),
        ("POST", "/api/v1/models", {"target": TARGET, "api_key": KEY}),
    ],
)
def test_only_administrators_with_the_scope_may(ask, targets, method, path, json):
    assert ask(method, path, json, role="member")[0] == 403
    assert ask(method, path, json, scopes=["model:inference"])[0] == 403
    assert targets.asked == []


def test_document_says_that_keys_are_written_only(ask):
    """Without a session: it is a document."""
    _, document = ask("GET", "/openapi.json")

    for name in ("NewTarget", "TargetKey"):
        schema = document["components"]["schemas"][name]["properties"]["api_key"]
        kinds = [each for each in schema["anyOf"] if each["type"] != "null"]
        assert [each["writeOnly"] for each in kinds] == [True]


def test_bodies_do_not_show_a_key(ask):
    shown = [NewTarget(target=TARGET, api_key=KEY), TargetKey(target=TARGET, api_key=KEY)]

    assert "canary" not in repr(shown) + str([each.model_dump_json() for each in shown])
