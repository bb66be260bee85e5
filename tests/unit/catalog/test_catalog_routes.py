"""`/v1/models` as every client reads it, and what operators do with models."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lingpai.catalog.interfaces import Model
from lingpai.catalog.routes import client_routes, management_routes
from lingpai.catalog.schemas import ModelPage
from lingpai.catalog.service import Catalog
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.prices import parse_price
from lingpai.principal import Principal
from lingpai.web.errors import install_error_handlers


class Backend:
    name, kind, state, headers = "gpu-1", "openai", "ready", {"authorization": "Bearer sk-secret"}


BACKEND = Backend()


class Targets:
    """What the routes ask for, noted."""

    def __init__(self):
        self.asked = []

    async def add(self, caller, target, *, is_local, api_key=None):
        self.asked.append(("add", target, is_local, *([] if api_key is None else [api_key])))
        return [model("new")]

    async def remove(self, caller, model):
        self.asked.append(("remove", model.id))

    async def check(self, caller, model):
        return [{"name": "call", "ok": model.id != "broken", "ms": 1, "detail": "x"}]


def model(id_, **fields) -> Model:
    return Model(
        **{
            "id": id_,
            "task": "chat",
            "backend": BACKEND,
            "upstream_name": f"theirs-{id_}",
            "created": 1_795_000_000,
            **fields,
        }
    )


def caller(role="admin", models=(), scopes=ALL_SCOPES):
    return Principal("usr_1", "ada", role, key_id="k", models=models, scopes=frozenset(scopes))


@pytest.fixture
def targets():
    return Targets()


@pytest.fixture
def ask(targets):
    """Asks the routes as a caller; answers status and body."""
    catalog = Catalog()
    catalog.replace(BACKEND, [
        model("acme/shout", aliases=("gpt-4o",), description="Loud."), model("qwen3:8b"), model("hf.co/a/b:Q6_K"), model("broken"),
    ])  # fmt: skip
    app = FastAPI()
    app.include_router(client_routes(catalog))
    app.include_router(management_routes(catalog, targets))
    install_error_handlers(app)
    client = TestClient(app)

    def ask(method, path, *, by=None, headers=None, json=None):
        async def authenticate(request):
            return by or caller()

        app.state.authenticate = authenticate
        response = client.request(method, path, headers=headers, json=json)
        return response.status_code, response.json() if response.content else None

    return ask


def test_list_has_openais_shape(ask):
    status, body = ask("GET", "/v1/models")

    assert status == 200
    assert body["object"] == "list"
    assert body["data"][0] == {
        "id": "acme/shout",
        "object": "model",
        "created": 1_795_000_000,
        "owned_by": "acme",
        "task": "chat",
    }


def test_anthropics_clients_get_their_own_shape(ask):
    _, body = ask("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"})

    assert body["data"][0] == {
        "type": "model",
        "id": "acme/shout",
        "display_name": "acme/shout",
        "created_at": "2026-11-18T11:06:40Z",
    }
    assert (body["has_more"], body["first_id"], body["last_id"]) == (False, "acme/shout", "broken")


def test_empty_list_in_anthropics_shape_has_no_first_and_last(ask):
    _, body = ask("GET", "/v1/models", by=caller(models=("none",)), headers={"anthropic-version": "x"})

    assert body == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models"])
def test_lists_hold_only_what_the_key_may_call(ask, path):
    _, body = ask("GET", path, by=caller(models=("acme/*",)))

    assert [each["id"] for each in body["data"]] == ["acme/shout"]


@pytest.mark.parametrize(
    "written", ["acme/shout", "acme%2Fshout", "qwen3:8b", "qwen3%3A8b", "hf.co/a/b:Q6_K", "gpt-4o"]
)
def test_one_model_is_found_by_any_spelling_of_its_id(ask, written):
    status, body = ask("GET", f"/v1/models/{written}")

    assert status == 200
    assert body["id"] == written.replace("%2F", "/").replace("%3A", ":")


@pytest.mark.parametrize("path", ["/v1/models/{}", "/api/v1/models/{}"])
def test_unknown_model_and_one_the_key_may_not_see_are_told_alike(ask, path):
    narrow = caller(models=("acme/*",))

    unknown, hidden = (
        ask("GET", path.format("qwen3:9b"), by=narrow),
        ask("GET", path.format("qwen3:8b"), by=narrow),
    )

    assert unknown[0] == hidden[0] == 404
    assert unknown[1]["error"]["code"] == hidden[1]["error"]["code"] == "model_not_found"
    assert hidden[1]["error"]["message"] == unknown[1]["error"]["message"].replace("9b", "8b")


def test_unknown_model_is_answered_with_the_nearest(ask):
    _, body = ask("GET", "/v1/models/acme/shuot")

    assert "`acme/shout`" in body["error"]["message"]


def test_operators_page_tells_state_and_nothing_secret(ask):
    status, body = ask("GET", "/api/v1/models/acme/shout")

    assert status == 200
    assert (body["status"], body["aliases"], body["description"]) == ("ready", ["gpt-4o"], "Loud.")
    assert body["backends"] == [{"name": "gpu-1", "kind": "openai", "state": "ready"}]
    assert "secret" not in str(body)


@pytest.mark.parametrize(("name", "ok"), [("acme/shout", True), ("gpt-4o", True), ("broken", False)])
def test_check_is_ok_when_every_step_is(ask, name, ok):
    status, body = ask("POST", "/api/v1/models/check", json={"model": name})

    assert (status, body["ok"]) == (200, ok)


def test_administrator_adds_and_removes(ask, targets):
    added = ask("POST", "/api/v1/models", json={"target": "http://h/v1"})
    removed = ask("DELETE", "/api/v1/models/acme/shout")

    assert (added[0], [each["id"] for each in added[1]["data"]]) == (201, ["new"])
    assert removed == (204, None)
    assert targets.asked == [("add", "http://h/v1", False), ("remove", "acme/shout")]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/v1/models"), ("DELETE", "/api/v1/models/acme/shout")]
)
def test_members_neither_add_nor_remove(ask, targets, method, path):
    status, body = ask(method, path, by=caller("member"), json={"target": "http://h/v1"})

    assert (status, body["error"]["code"]) == (403, "insufficient_scope")
    assert targets.asked == []


@pytest.mark.parametrize(
    "json", [{}, {"target": ""}, {"target": 5}, {"target": "x" * 3000}, {"target": "a", "extra": 1}]
)
def test_bad_target_is_refused_before_anything_is_tried(ask, targets, json):
    status, body = ask("POST", "/api/v1/models", json=json)

    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert targets.asked == []


def test_page_of_a_model_shows_its_price_and_limits():
    price = parse_price({"input": "0.5", "output": "1.5", "request": "0.01", "currency": "CNY"})
    priced = model("a/b", price=price, limits=("5/day",), user_limits=("1/day",), default_max_tokens=99)

    page = ModelPage.of(priced).model_dump()

    assert page["price"] == {
        "input": "0.5", "output": "1.5", "cached_input": "0.5", "request": "0.01", "currency": "CNY",
    }  # fmt: skip
    assert (page["limits"], page["user_limits"]) == (["5/day"], ["1/day"])
    assert (page["default_max_tokens"], page["has_tokenizer"]) == (99, False)
