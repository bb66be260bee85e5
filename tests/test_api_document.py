"""The OpenAPI document of the management API: complete enough to write a client from it, and the same as what is served."""

import asyncio

import pytest

from lingpai.api import build_api
from lingpai.errors import CATALOGUE
from tests.test_routes import OPEN, running_application

MANAGED = (
    "audit", "clients", "events", "invitations", "keys", "limits", "models", "projects", "requests", "secrets", "sessions",
    "signatures", "targets", "tokens", "usage", "users",
)  # fmt: skip
MODEL_CALL = "/api/v1/models/{model}/inference"
SECRET_FIELDS = {"secret_hmac", "pepper_version", "old_secret_hmac", "password_hash", "secret", "token"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    async def make():
        async with running_application(tmp_path_factory.mktemp("data")) as (application, _):
            return build_api(application).openapi()

    return asyncio.run(make())


@pytest.fixture(scope="module")
def operations(document):
    """Of the management API: by method and path."""
    found = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith(tuple(f"/api/v1/{noun}" for noun in MANAGED)) and path != MODEL_CALL
    }
    assert len(found) > 60
    return found


def resolved(document, part, kind="schemas"):
    while "$ref" in part:
        part = document["components"][kind][part["$ref"].rpartition("/")[2]]
    return part


def contents(part):
    return part.get("content", {}).values()


def test_document_begins_with_how_to_call(document):
    assert "Authorization: Bearer" in document["info"]["description"]


def test_every_operation_says_what_it_does_and_how_it_fails(operations):
    for name, operation in operations.items():
        assert operation["description"], name
        refusal = operation["responses"]["4XX"]["content"]["application/json"]
        assert refusal["schema"], name
        assert refusal["example"]["error"]["code"], name


def test_every_operation_names_its_key_but_the_open_ones(operations):
    unsecured = {
        (method.upper(), path)
        for (method, path), operation in operations.items()
        if not operation.get("security")
    }

    assert unsecured <= OPEN


def test_every_operation_names_every_way_to_prove_who_calls(document, operations):
    schemes = document["components"]["securitySchemes"]
    for (method, path), operation in operations.items():
        ways = [set(way) for way in operation.get("security", [])]
        if (method.upper(), path) in OPEN:
            assert ways == []
            continue
        session = {"session"} if method == "get" else {"session", "csrf"}
        assert ways == [{"apiKey"}, {"accessToken"}, session], (method, path)
    for flow in schemes["accessToken"]["flows"].values():
        needed = {
            scope
            for operation in operations.values()
            for way in operation.get("security", [])
            for scope in way.get("accessToken", [])
        }
        assert needed <= set(flow["scopes"])


def test_every_operation_says_which_refusals_to_expect(document, operations):
    for (method, path), operation in operations.items():
        expected = {"429", "503"}
        if (method.upper(), path) not in OPEN:
            expected |= {"401", "403"} | ({"404"} if "{" in path else set())
        assert expected <= set(operation["responses"]), (method, path)
        for status in expected:
            answer = resolved(document, operation["responses"][status], "responses")
            example = answer["content"]["application/json"]["example"]["error"]
            assert str(CATALOGUE[example["code"]].status) == status


def test_every_parameter_is_described(operations):
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])


def test_owasp_api3_every_body_has_an_example_and_refuses_unknown_fields(document, operations):
    with_body = 0
    for name, operation in operations.items():
        for content in contents(operation.get("requestBody", {})):
            schema = resolved(document, content["schema"])
            assert content.get("example") or schema.get("examples"), name
            if schema["type"] == "object":
                assert schema["additionalProperties"] is False, name
                with_body += 1
    assert with_body >= 10


def test_examples_fit_their_schemas(document, operations):
    """As far as names and required fields go."""
    for name, operation in operations.items():
        for content in contents(operation.get("requestBody", {})):
            schema = resolved(document, content["schema"])
            for example in [content["example"]] if "example" in content else schema["examples"]:
                if isinstance(example, dict):
                    assert set(example) <= set(schema["properties"]), name
                    assert set(schema.get("required", ())) <= set(example), name


def test_owasp_api3_every_answer_lists_its_fields_and_none_is_a_secret(document, operations):
    listed = 0
    for (method, path), operation in operations.items():
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if not status.startswith("2") or "schema" not in content or media_type != "application/json":
                    continue  # exports are lines of text
                schema = resolved(document, content["schema"])
                fields = set(schema.get("properties", ()))
                assert fields, (method, path)
                # What has just been made shows its secret, once: of a signing key it is called so.
                made = {"secret"} if method == "post" and path.endswith("/{id}/signing-keys") else set()
                assert not fields & SECRET_FIELDS - made
                listed += 1
    assert listed > 20


def test_lists_have_cursors(operations):
    lists = {path for (method, path), _ in operations.items() if method == "get" and path.count("{") == 0} - {
        "/api/v1/limits/explain",
        "/api/v1/usage",
        "/api/v1/usage/export",
        "/api/v1/usage/journal",
        "/api/v1/sessions/current",
        # As many as there are secrets of the server, and targets and models of theirs: an operator's handful.
        "/api/v1/secrets",
        "/api/v1/models",
        "/api/v1/targets",
    }
    lists = {path for path in lists if not path.endswith("/export")}

    for path in (*lists, "/api/v1/projects/{id}/members"):
        names = {parameter["name"] for parameter in operations["get", path]["parameters"]}
        assert {"limit", "cursor"} <= names, path
