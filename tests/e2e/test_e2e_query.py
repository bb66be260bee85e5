"""Query parameters of the management API: what a route does not declare is refused, on every operation of the document."""

from typing import Any

import httpx2

from tests.e2e.api_operations import CALLS, body_schema, client_with, filled, operations_of
from tests.e2e.lingpai_server import LingpaiServer

IGNORED_BY = {
    ("GET", "/api/v1/key"),  # answers programs that were written for OpenRouter
    ("POST", "/api/v1/token"),  # RFC 6749 section 3.2: unrecognized parameters are ignored
}


def managed(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    return [
        (method, path, operation, {"json": schema["example"]} if schema else {})
        for method, path, operation in operations_of(document)
        if path.startswith("/api/v1/") and not CALLS.match(path)
        for schema in [body_schema(document, operation)]
    ]


def test_every_operation_refuses_a_parameter_that_it_does_not_declare(
    document: dict[str, Any], root: httpx2.Client
) -> None:
    refused = set()
    for method, path, _, body in managed(document):
        answer = root.request(method, filled(path), params={"surprise": "1"}, **body)
        if answer.is_error and "no query parameter `surprise`" in answer.text:
            error = answer.json()["error"]
            named = (answer.status_code, error["code"], error["param"])
            assert named == (400, "invalid_request", "surprise"), (method, path)
            refused.add((method, path))

    assert {(method, path) for method, path, *_ in managed(document)} - refused == IGNORED_BY
    assert len(refused) > 60


def test_every_parameter_is_refused_when_it_is_sent_twice(
    document: dict[str, Any], root: httpx2.Client
) -> None:
    count = 0
    for method, path, operation, body in managed(document):
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query":
                continue
            name = parameter["name"]
            answer = root.request(method, filled(path), params=[(name, "1"), (name, "2")], **body)
            assert answer.status_code == 400, (method, path, name)
            assert "2 times" in answer.json()["error"]["message"], (method, path, name)
            count += 1

    assert count > 50


def test_the_refusal_names_the_parameter_that_was_meant(root: httpx2.Client) -> None:
    answer = root.get("/api/v1/keys", params={"stat": "disabled"})

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "stat")
    assert "Did you mean `state`" in error["message"]


def test_a_misspelt_filter_ends_nothing(tried: LingpaiServer) -> None:
    password = "bobs own long password"
    tried.admin("POST", "/api/v1/users", {"name": "bob", "password": password})
    signed_in = httpx2.post(
        f"http://127.0.0.1:{tried.port}/api/v1/sessions", json={"name": "bob", "password": password}
    )
    assert signed_in.status_code == 201

    with client_with(
        tried, tried.make_key("bob-key", user="bob", scopes=["sessions:read", "sessions:write"])
    ) as bob:
        answer = bob.delete("/api/v1/sessions", params={"usr": "eve"})
        left = bob.get("/api/v1/sessions").json()["data"]

    assert answer.status_code == 400
    assert "Did you mean `user`" in answer.json()["error"]["message"]
    assert len(left) == 1


def test_callers_without_a_key_hear_of_the_key_first(tried: LingpaiServer) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{tried.port}/api/v1/keys", params={"surprise": "1"})

    assert answer.status_code == 401


def test_open_routes_refuse_it_too(tried: LingpaiServer) -> None:
    answer = httpx2.post(f"http://127.0.0.1:{tried.port}/api/v1/sessions", params={"surprise": "1"}, json={})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "surprise")


def test_outside_of_the_management_api_unknown_parameters_are_ignored(root: httpx2.Client) -> None:
    """Programs for other platforms send their own, such as `api-version`."""
    for path in ("/v1/models", "/healthz", "/.well-known/oauth-authorization-server"):
        assert root.get(path, params={"api-version": "1"}).status_code == 200, path
