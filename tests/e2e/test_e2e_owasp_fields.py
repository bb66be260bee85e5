"""OWASP API Security 2023, API3 and API5: fields and functions, tried on every operation of the document."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from lingpai.identity.scopes import ALL_SCOPES, SCOPES_OF_ROLE
from tests.e2e.api_operations import CALLS, body_schema, client_with, filled, operations_of, resolved
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import chat, post
from tests.secrets_scan import SCAN

CHAT = "/v1/chat/completions"
MEMBER = sorted(SCOPES_OF_ROLE["member"])
# What people who assign fields in bulk forget to keep out.
FORBIDDEN = (
    "id", "user_id", "owner_id", "project_id", "client_id", "key_id", "role", "is_admin", "admin", "scope", "scopes", "quota",
    "balance", "limits", "user_limits", "models", "allowed_models", "allowed_routes", "expires_at", "owner", "user", "project",
    "disabled", "disabled_at", "created_at", "last_used_at", "secret", "secret_hmac", "password_hash", "key", "hint", "public",
    "grants", "permissions", "tenant", "__proto__", "constructor",
)  # fmt: skip


# -- API3: mass assignment, and answers with fields that are listed


def test_owasp_api3_no_body_of_the_management_api_takes_a_field_it_does_not_have(tried, document, root):
    """The field is named, on every route that creates or changes anything, also before anything is known of its path."""
    before = state(tried)
    seen = set()
    for method, path, operation in operations_of(document):
        schema = body_schema(document, operation)
        if schema is None or CALLS.match(path):
            continue
        # Reports of leaked keys are taken one a second, whoever sends them.
        for name in FORBIDDEN[:6] if path.endswith("/leaked") else FORBIDDEN:
            if name in schema["properties"]:
                continue
            answer = root.request(method, filled(path), json={**schema["example"], name: "mine"})
            assert answer.status_code == 400, (method, path, name, answer.text)
            # A report of leaked keys repeats nothing of what it was sent, not even names.
            named = "keys" if path.endswith("/leaked") else name
            assert answer.json()["error"]["param"] == named, (method, path)
            seen.add((method, path))

    assert len(seen) >= 20, sorted(seen)
    assert {method for method, _ in seen} == {"POST", "PATCH", "PUT"}
    assert state(tried) == before


def state(server: LingpaiServer) -> dict[str, Any]:
    """What only administrators decide: who is who, and the limits of users, projects and models."""
    found = {name: server.admin("GET", f"/api/v1/{name}?limit=200")["data"] for name in ("users", "projects")}
    found["limits"] = [
        (row["subject"], row["id"], row["limit"])
        for row in server.admin("GET", "/api/v1/limits?limit=200")["data"]
        if row["subject"] not in {"key", "client"}
    ]
    return found


# What a member could try to get with each field. A field that is not here fails the test: decide what it could do.
GREEDY: dict[str, list[Any]] = {
    "role": ["admin"],
    "scopes": [sorted(ALL_SCOPES), ["users:write"], ["limits:write"], ["usage:read"]],
    "models": [[], ["*/*"], ["lingpai/*"]],
    "limits": [["none"], [], ["999999999/day"], None],
    "allowed_ips": [[], ["0.0.0.0/0", "::/0"]],
    "expires_at": ["2999-01-01T00:00:00Z", None],
    "expires_in": ["9999d"],
    "user": ["admin", "eve"],
    "owner": ["admin", "eve"],
    "project": ["admin", "eves"],
    "grants": [["password"], ["client_credentials", "password", "refresh_token"]],
    "public": [True],
    "disabled": [False],
    "password": ["quiet harbour lamp of nobody"],
    "current_password": ["guess"],
    "token_lifetime_s": [10**9],
    "subject": ["user", "project", "model"],
    "id": ["bob", "admin"],
    "target": ["http://127.0.0.1:1/v1"],
    "model": ["lingpai/eliza"],
    "leaked": [True],
    "signature_required": [False],
}
HARMLESS = {
    "name", "overlap", "algorithm", "public_key", "request", "body_base64", "signature_base", "invitation", "keys", "api_key",
}  # fmt: skip


@dataclass
class Bob:
    """A member whose key is narrow in every way that a key can be."""

    server: LingpaiServer
    client: httpx2.Client
    shown: dict[str, Any]
    its_client: str

    def address(self, path: str) -> str:
        if path.startswith("/api/v1/clients/"):
            return path.replace("{id}", self.its_client)
        if path.startswith("/api/v1/users/"):
            return path.replace("{id}", "bob")
        if path.startswith("/api/v1/projects/"):
            return path.replace("{id}", "bobs").replace("{user}", "bob")
        if path.startswith("/api/v1/keys/"):
            return path.replace("{id}", "bob-other")
        return filled(path)

    def is_within(self, view: dict[str, Any]) -> bool:
        """Whether a key or a client can do no more than the key that it was made with."""
        own = self.shown
        return (
            set(view["scopes"]) <= set(own["scopes"])
            and set(view["models"]) == set(own["models"])
            and set(view["allowed_ips"]) == set(own["allowed_ips"])
            and view["expires_at"] is not None
            and view["expires_at"] <= own["expires_at"]
            and view["user"] == "bob"
            and view["project"] == "bobs"
            and "password" not in view.get("grants", ())
        )


@pytest.fixture
def bob(make_server: MakeServer) -> Iterator[Bob]:
    server = make_server(config="[identity]\ncredentials_per_hour = 1000\n").start()
    for name in ("bob", "eve"):
        server.admin("POST", "/api/v1/users", {"name": name, "limits": ["5000/day"]})
        server.admin("POST", "/api/v1/projects", {"name": f"{name}s", "owner": name, "limits": ["4000/day"]})
    scopes = [scope for scope in MEMBER if scope != "usage:read"]
    fields = {"user": "bob", "project": "bobs", "models": ["lingpai/eliza"], "allowed_ips": ["127.0.0.0/8"]}
    restricted = {**fields, "scopes": scopes, "expires_in": "2d"}
    client = client_with(server, server.make_key("bob-key", limits=[], **restricted))
    server.make_key("bob-other", limits=[], **restricted)
    shown = server.admin("GET", "/api/v1/keys/bob-other")
    made = client.post("/api/v1/clients", json={"name": "bob-client", "project": "bobs"})
    assert made.status_code == 201, made.text
    SCAN.secrets.add_credentials(made.text)
    yield Bob(server, client, shown, made.json()["client_id"])
    client.close()


def test_owasp_api3_no_field_gives_a_member_more_than_the_key_it_is_sent_with(bob, document):
    """Role, owner, scopes, models, limits, addresses, expiry: refused, or at most as much as the caller has."""
    before = state(bob.server)
    accepted, refused = set(), set()
    for method, path, operation in operations_of(document):
        schema = body_schema(document, operation)
        if schema is None or CALLS.match(path):
            continue
        unknown = set(schema["properties"]) - set(GREEDY) - HARMLESS
        assert not unknown, f"{method} {path}: say in GREEDY what a member could gain by {unknown}"
        for name in set(schema["properties"]) & set(GREEDY):
            for value in GREEDY[name]:
                body = {**minimal(schema, path), name: value}
                answer = bob.client.request(method, bob.address(path), json=body)
                SCAN.secrets.add_credentials(answer.text)
                assert answer.status_code < 500, (method, path, body, answer.text)
                if not answer.is_success:
                    refused.add((method, path, name))
                    continue
                accepted.add((method, path, name))
                if path.startswith(("/api/v1/keys", "/api/v1/clients")) and "signing" not in path:
                    assert bob.is_within(answer.json()), (method, path, body, answer.text)

    for row in (
        *bob.client.get("/api/v1/keys?limit=200").json()["data"],
        *bob.client.get("/api/v1/clients?limit=200").json()["data"],
    ):
        assert bob.is_within(row), row
    assert state(bob.server) == before
    assert {
        ("POST", "/api/v1/keys", name)
        for name in ("scopes", "models", "user", "project", "limits", "expires_in")
    } <= refused
    assert {
        ("PATCH", "/api/v1/keys/{id}", name) for name in ("scopes", "models", "allowed_ips", "expires_at")
    } <= refused
    assert {("PATCH", "/api/v1/users/{id}", name) for name in ("role", "limits", "disabled")} <= refused
    assert {("POST", "/api/v1/clients", name) for name in ("scopes", "grants", "limits")} <= refused
    assert ("PATCH", "/api/v1/keys/{id}", "limits") in accepted  # limits that are added narrow
    # The bodies are good but for what they ask for.
    assert bob.client.post("/api/v1/keys", json={"name": "fine", "project": "bobs"}).status_code == 201
    assert bob.client.post("/api/v1/clients", json={"name": "fine", "project": "bobs"}).status_code == 201
    assert bob.client.patch("/api/v1/keys/bob-other", json={"name": "fine too"}).status_code == 200


_numbers = iter(range(10_000))


def minimal(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The required fields only, with a name of its own."""
    body = {name: schema["example"].get(name) for name in schema.get("required", ())}
    if path in ("/api/v1/keys", "/api/v1/clients"):
        body |= {"name": f"greedy-{next(_numbers)}", "project": "bobs"}
    return body


def test_owasp_api3_answers_have_the_fields_that_the_document_lists_and_no_others(tried, document, root):
    """Of everything that can be read without an id, with something in every list that a test can fill quickly."""
    tried.admin("POST", "/api/v1/clients", {"name": "listed"})
    post(tried.port, CHAT, chat(model="lingpai/eliza"), key=tried.key)
    seen = set()
    for method, path, operation in operations_of(document):
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        schema = resolved(document, content.get("schema", {}))
        if method != "GET" or "{" in path or "properties" not in schema:
            continue
        answer = root.get(path)
        if (
            answer.status_code != 200
        ):  # there is no session; secrets are for this machine only; no key is named
            assert path.endswith(("/current", "/secrets", "/explain")), (path, answer.text)
            continue
        assert fits(document, schema, answer.json()), (path, answer.text)
        seen.add(path)

    assert {
        f"/api/v1/{name}"
        for name in ("keys", "users", "projects", "clients", "limits", "usage", "audit", "requests")
    } <= seen


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    schema = resolved(document, schema)
    if isinstance(value, dict) and "properties" in schema:
        if schema.get("additionalProperties") is not True and not set(value) <= set(schema["properties"]):
            return False
        return all(fits(document, schema["properties"].get(name, {}), each) for name, each in value.items())
    if isinstance(value, list) and "items" in schema:
        return all(fits(document, schema["items"], each) for each in value)
    return True


# -- API5: functions


def test_owasp_api5_a_key_without_a_scope_gets_nowhere_and_a_member_not_where_administrators_do(
    tried, document
):
    """Every operation with a scope, by a key without any that matters, and by a member with all that a member can hold."""
    tried.admin("POST", "/api/v1/users", {"name": "mallory", "limits": ["5000/day"]})
    nothing = tried.make_key("nothing", user="mallory", scopes=["usage:read"])
    member = tried.make_key("all", user="mallory", scopes=MEMBER)
    by_nothing, by_member = (client_with(tried, key) for key in (nothing, member))
    admins_only = set()
    with by_nothing, by_member:
        for method, path, operation in operations_of(document):
            for scope in next(iter((operation.get("security") or [{}])[0].values()), []):
                if scope == "usage:read":
                    continue
                schema = body_schema(document, operation)
                body = None if schema is None else schema["example"]
                answer = by_nothing.request(method, filled(path), json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope"), (
                    method,
                    path,
                )
                if scope not in MEMBER:
                    answer = by_member.request(method, filled(path), json=body)
                    assert answer.json()["error"]["code"] == "insufficient_scope", (method, path)
                    admins_only.add((method, path))

    assert len(admins_only) >= 14, sorted(admins_only)
    assert {
        ("POST", "/api/v1/models"),
        ("POST", "/api/v1/users"),
        ("GET", "/api/v1/audit"),
        ("PUT", "/api/v1/limits"),
    } <= admins_only
