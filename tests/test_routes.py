"""No route forgets authentication: each declares a scope, or says why it is open and is on the list here."""

import asyncio
import re
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from lingpai.api import build_api
from lingpai.app import Application
from lingpai.gateway.endpoints import _BY_PATH, ENDPOINTS
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.settings import ServerSettings, Settings
from lingpai.web.auth import ANY, declared_scope, open_reason

OPEN = {
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-authorization-server/{path:path}"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/{path:path}"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/readyz"),
    ("POST", "/api/v1/invitations/accept"),
    ("POST", "/api/v1/invitations/look-up"),
    ("POST", "/api/v1/keys/leaked"),
    ("POST", "/api/v1/sessions"),
    ("POST", "/api/v1/token"),
    ("POST", "/oauth/introspect"),
    ("POST", "/oauth/revoke"),
    ("POST", "/oauth/token"),
}
DOCUMENT = "/openapi.json"
"""FastAPI's own route; it says what there is, and nothing of anybody's."""


@asynccontextmanager
async def running_application(folder):
    application = Application(Settings(server=ServerSettings(port=0)), data=folder, environment={})
    try:
        started = await application.start(())
        yield application, started.address
    finally:
        await application.stop()


def routes_of(application):
    fastapi = build_api(application)
    return [route for route in iter_route_contexts(fastapi.routes) if route.path != DOCUMENT]


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    async def collect():
        async with running_application(tmp_path_factory.mktemp("data")) as (application, _):
            return routes_of(application)

    return asyncio.run(collect())


def test_owasp_api5_every_route_declares_a_scope_or_why_it_is_open(routes):
    for route in routes:
        scope, reason = declared_scope(route), open_reason(route)

        assert (scope is None) != (reason is None), f"{route.path} must do exactly one of both"
        assert scope is None or scope == ANY or scope in ALL_SCOPES, f"{route.path}: {scope}"


def test_owasp_api5_the_open_routes_are_these(routes):
    found = {(method, route.path) for route in routes if open_reason(route) for method in route.methods}

    assert found == OPEN


def test_owasp_api9_the_document_has_every_route_and_every_address_of_a_model_call(tmp_path):
    """Beside spellings: each model call also answers without `/v1`, as base URLs are pasted."""

    async def collect():
        async with running_application(tmp_path / "data") as (application, _):
            return build_api(application).openapi(), routes_of(application)

    document, routes = asyncio.run(collect())

    documented = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    served = {(method, route.path.replace(":path}", "}")) for route in routes for method in route.methods}
    in_the_lane = {path.decode() for path in _BY_PATH}
    assert documented == {(method, path) for method, path in served if method != "HEAD"}
    assert {path for path in in_the_lane if ("POST", path) not in documented} == {
        endpoint.path.removeprefix("/v1") for endpoint in ENDPOINTS if endpoint.path.startswith("/v1/")
    }


def test_owasp_api2_every_other_route_wants_a_key(tmp_path):
    async def call_all():
        async with running_application(tmp_path / "data") as (application, address):
            wanted = [(method, route.path) for route in routes_of(application) for method in route.methods]
            async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:
                return [
                    (method, path, await client.request(method, re.sub(r"\{.*?\}", "x", path)))
                    for method, path in wanted
                    if (method, path) not in OPEN
                ]

    answers = asyncio.run(call_all())

    assert len(answers) > 20
    for method, path, answer in answers:
        assert answer.status_code == 401, f"{method} {path} answered {answer.status_code} without a key"
        assert answer.json()["error"]["code"] == "missing_api_key"
        assert answer.headers["x-request-id"]
