"""Scopes on routes: what they let through, what they refuse, and that a test can read them off."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.web.auth import ANY, declared_scope, open_reason, open_route, require
from lingpai.web.errors import install_error_handlers

KEYS = {
    "reader": Principal("usr_1", "bob", "member", key_id="k1", scopes=frozenset({"keys:read", "usage:read"})),
    "empty": Principal("usr_1", "bob", "member", key_id="k2"),
}


async def authenticate(request: Request) -> Principal:
    key = request.headers.get("authorization")
    if key is None:
        raise LingpaiError("missing_api_key", "Send a key.")
    return KEYS[key]


def management_app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.state.authenticate = authenticate
    router = APIRouter(prefix="/api/v1")

    @router.get("/keys")
    def keys(caller: Annotated[Principal, require("keys:read")]) -> str:
        return caller.user_name

    @router.get("/self")
    def self(caller: Annotated[Principal, require(ANY)]) -> str:
        return str(caller.key_id)

    @router.get("/forgotten")
    def forgotten() -> str:
        return "oh"

    @app.get("/healthz")
    @open_route("load balancers have no key")
    async def health() -> str:
        return "ok"

    app.include_router(router)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(management_app()) as client:
        yield client


def routes_of(app: FastAPI) -> dict[str, Any]:
    return {str(route.path): route for route in iter_route_contexts(app.routes)}


def test_caller_with_the_scope_is_let_in_and_handed_to_the_route(client: TestClient) -> None:
    answer = client.get("/api/v1/keys", headers={"authorization": "reader"})

    assert (answer.status_code, answer.json()) == (200, "bob")


def test_caller_without_the_scope_gets_403_that_names_it(client: TestClient) -> None:
    answer = client.get("/api/v1/keys", headers={"authorization": "empty"})

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "insufficient_scope"
    assert "`keys:read`" in answer.json()["error"]["message"]
    assert (
        answer.headers["www-authenticate"]
        == 'Bearer realm="lingpai", error="insufficient_scope", scope="keys:read"'
    )


def test_any_asks_for_a_valid_key_and_no_scope(client: TestClient) -> None:
    assert client.get("/api/v1/self", headers={"authorization": "empty"}).json() == "k2"
    assert client.get("/api/v1/self").status_code == 401


def test_what_authenticate_raises_is_the_answer(client: TestClient) -> None:
    answer = client.get("/api/v1/keys")

    assert answer.json()["error"] == {
        "message": "Send a key.", "type": "authentication_error", "param": None, "code": "missing_api_key",
    }  # fmt: skip
    assert answer.headers["www-authenticate"] == "Bearer"


def test_declared_scope_is_read_off_routes_of_included_routers() -> None:
    routes = routes_of(management_app())

    assert declared_scope(routes["/api/v1/keys"]) == "keys:read"
    assert declared_scope(routes["/api/v1/self"]) == ANY
    assert declared_scope(routes["/api/v1/forgotten"]) is None
    assert declared_scope(routes["/healthz"]) is None


def test_open_reason_tells_intended_openness_from_a_forgotten_scope() -> None:
    routes = routes_of(management_app())

    assert open_reason(routes["/healthz"]) == "load balancers have no key"
    assert open_reason(routes["/api/v1/forgotten"]) is None
    assert open_reason(routes["/api/v1/keys"]) is None


def test_openapi_document_shows_scheme_and_scope() -> None:
    document = management_app().openapi()

    assert document["paths"]["/api/v1/keys"]["get"]["security"] == [{"apiKey": ["keys:read"]}]
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert "security" not in document["paths"]["/healthz"]["get"]
