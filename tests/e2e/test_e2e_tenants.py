"""Two tenants on one real server: what is the other's does not exist, in every place of every route where an id can stand."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from lingpai.identity.scopes import SCOPES_OF_ROLE
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import chat, post

# What a member's key can hold at most.
SCOPES = sorted(SCOPES_OF_ROLE["member"])
# Kinds of things by the name that a parameter or a field has for them; `id` depends on the path.
KIND_OF_NAME = {
    "user": "user",
    "owner": "user",
    "key": "key",
    "project": "project",
    "client": "client",
    "signing_key": "signing key",
    "request_id": "request",
    "name": "key",
}
UNKNOWN = {
    "user": ("usr_zzzzzzzzzzzz", "nobody"),
    "key": ("zzzzzzzzzzzz", "no-key"),
    "project": ("prj_zzzzzzzzzzzz", "no-project"),
    "client": ("cl-lp-zzzzzzzzzzzz", "no-client"),
    "session": ("zzzzzzzzzzzz",),
    "token": ("zzzzzzzzzzzz",),
    "signing key": ("sgn_zzzzzzzzzzzz",),
    "request": ("req_6559f2800000000000000000000000",),
}
# A request's id is a filter like a model's name: what does not fit gives an empty list, or the head of an export.
NOTHING = re.compile(r'\{"data":\[\],"next_cursor":null\}|id,[\w,]*\r\n')
# Needed for a body to be read at all, when the document's example does not say it.
BODIES: Mapping[str, dict[str, Any]] = {
    "/api/v1/keys": {"name": "new", "user": "bob", "project": "bobs"},
    "/api/v1/projects": {"name": "new", "owner": "bob"},
    "/api/v1/limits": {"subject": "key", "id": "x", "limits": []},
}
# Not about anybody's things: models are the server's own, and a report says nothing about anybody.
OTHERS = re.compile(
    r"/api/v1/models|/api/v1/generate|/predict|/v[12]/|/healthz|/readyz|/metrics|.*/leaked$|.*/token$|/oauth/|.*/invitations/|/api/v1/signatures/explain$|.*/current$"
)


@dataclass
class Ask:
    """One request with a place for an id."""

    method: str
    path: str
    kind: str
    place: str
    params: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    def filled(self, reference: str) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
        body = None if self.body is None else {**self.body}
        params = {**self.params}
        path = self.path
        if self.place.startswith("path "):
            path = path.replace(f"{{{self.place[5:]}}}", reference)
        elif self.place.startswith("query "):
            params[self.place[6:]] = reference
        else:
            assert body is not None
            body[self.place[5:]] = reference
        return path, params, body


@pytest.fixture(scope="module")
def server(demo: LingpaiServer) -> LingpaiServer:
    return demo


@dataclass
class Tenants:
    """What ada has, by kind, and the key of bob, who has as much of his own."""

    server: LingpaiServer
    theirs: dict[str, tuple[str, ...]]
    bob: str
    ada: str


@pytest.fixture(scope="module")
def tenants(server: LingpaiServer) -> Tenants:
    keys = {}
    for name in ("ada", "bob"):
        server.admin("POST", "/api/v1/users", {"name": name, "limits": ["100000/day"]})
        server.admin("POST", "/api/v1/projects", {"name": f"{name}s", "owner": name, "limits": ["90000/day"]})
        body = {"name": f"{name}-key", "user": name, "project": f"{name}s", "scopes": SCOPES}
        keys[name] = server.admin("POST", "/api/v1/keys", {**body, "limits": ["none"]})
    answer = post(server.port, "/v1/chat/completions", chat(model="lingpai/eliza"), key=keys["ada"]["key"])
    assert answer.status == 200
    client = server.admin("POST", "/api/v1/clients", {"name": "ada-client", "user": "ada", "project": "adas"})
    server.admin("POST", "/api/v1/clients", {"name": "bob-client", "user": "bob", "project": "bobs"})
    form = {
        "grant_type": "client_credentials",
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
    }
    token = httpx2.post(f"{server.base}/oauth/token", data=form, trust_env=False).json()
    signs = {"name": "ada-signs", "algorithm": "hmac-sha256"}
    signing = server.admin("POST", "/api/v1/keys/ada-key/signing-keys", signs)
    invitation = server.admin("POST", "/api/v1/users/ada/invitation")["invitation"]
    accepted = {"invitation": invitation, "password": "correct horse battery staple"}
    httpx2.post(f"{server.base}/api/v1/invitations/accept", json=accepted, trust_env=False).raise_for_status()
    session = server.admin("GET", "/api/v1/sessions?user=ada")["data"][0]["id"]
    user = server.admin("GET", "/api/v1/users/ada")
    project = server.admin("GET", "/api/v1/projects/adas")
    theirs = {
        "user": (user["id"], "ada"),
        "key": (keys["ada"]["id"], "ada-key"),
        "project": (project["id"], "adas"),
        "request": (answer.headers["x-request-id"],),
        "client": (client["client_id"], "ada-client"),
        "session": (session,),
        "token": (token["access_token"][6:18],),
        "signing key": (signing["id"],),
    }
    return Tenants(server, theirs, keys["bob"]["key"], keys["ada"]["key"])


@pytest.fixture(scope="module")
def client(tenants: Tenants) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {tenants.bob}"}
    with httpx2.Client(base_url=tenants.server.base, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def kind_of(name: str, path: str) -> str | None:
    if name == "id":
        noun = path.split("/")[3]
        return "key" if noun == "limits" else noun.removesuffix("s")
    return KIND_OF_NAME.get(name)


def asks_of(document: dict[str, Any]) -> Iterator[Ask]:
    for path, operations in document["paths"].items():
        if OTHERS.match(path):
            continue
        for method, operation in operations.items():
            yield from _asks(document, method.upper(), path, operation)


def _asks(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[Ask]:
    body = _body(document, path, operation)
    # The things of others stand in one place; in all others stands what is bob's own.
    own = path.replace("/projects/{id}/members", "/projects/bobs/members")
    if "{signing_key}" in path:
        own = own.replace("{id}", "bob-client" if "/clients/" in path else "bob-key")
    own_user = own.replace("{user}", "bob")
    for parameter in operation.get("parameters", []):
        name, where = parameter["name"], parameter["in"]
        kind = kind_of(name, path)
        if kind is None or (name == "name" and where == "query" and "keys" not in path):
            continue
        if where == "path":
            yield Ask(
                method,
                own
                if name in {"user", "signing_key"}
                else path.replace("{user}", "bob").replace("{signing_key}", "x"),
                kind,
                f"path {name}",
                body=body,
            )
        elif where == "query" and name != "name":
            yield Ask(method, own_user, kind, f"query {name}")
    for name in body or ():
        kind = None if name == "name" else kind_of(name, path)
        if kind is not None and "{id}" not in own_user:
            yield Ask(method, own_user, kind, f"body {name}", body=body)


def _body(document: dict[str, Any], path: str, operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    return {**BODIES.get(path, schema["examples"][0])}


def test_owasp_api1_every_place_for_an_id_answers_for_anothers_things_as_for_unknown_ones(
    tenants: Tenants, client: httpx2.Client
) -> None:
    document = client.get("/openapi.json").json()
    asks = list(asks_of(document))

    def answer(ask: Ask, reference: str) -> tuple[int, str]:
        path, params, body = ask.filled(reference)
        found = client.request(ask.method, path, params=params, json=body)
        return found.status_code, found.text.replace(reference, "X")

    statuses = set()
    for ask in asks:
        for theirs, unknown in itertools.product(tenants.theirs[ask.kind], UNKNOWN[ask.kind]):
            found, expected = answer(ask, theirs), answer(ask, unknown)
            assert found == expected, (ask, theirs)
            is_nothing = found[0] == 200 and ask.kind == "request" and NOTHING.fullmatch(found[1])
            assert found[0] in {403, 404} or is_nothing, (ask, found)
            statuses.add((found[0], ask.place.split()[0]))

    places = {(ask.method, ask.path, ask.place) for ask in asks}
    assert len(places) >= 60, sorted(places)
    # 403 where the caller may not do such a thing with anything; else 404, in paths, queries and bodies
    assert {(404, "path"), (404, "query"), (404, "body")} <= statuses


def test_owasp_api1_no_list_shows_anything_of_the_other(tenants: Tenants, client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    lists = [
        path
        for path, operations in document["paths"].items()
        if "get" in operations and "{" not in path and path.startswith("/api/v1/") and not OTHERS.match(path)
    ]
    assert len(lists) >= 9

    for path in [*lists, "/api/v1/projects/bobs/members"]:
        known = {
            each["name"] for each in document["paths"].get(path, {}).get("get", {}).get("parameters", ())
        }
        more = {"by": "user,key,project", "limit": "200"}
        for query in ({}, {name: value for name, value in more.items() if name in known}):
            answer = client.get(path, params=query)
            is_for_admins = re.match(r"/api/v1/(audit|secrets|targets)", path) is not None
            is_no_list = path.endswith(("explain", "journal", "export", "current"))
            assert answer.status_code == (403 if is_for_admins else 200) or is_no_list, (path, answer.text)
            for words in itertools.chain(*tenants.theirs.values()):
                assert not re.search(rf"\b{re.escape(words)}\b", answer.text), (path, words)


def test_owasp_api1_what_is_ones_own_is_there(tenants: Tenants, client: httpx2.Client) -> None:
    """The walk would pass on a server that answers 404 to everything."""
    for path in (
        "/api/v1/keys/bob-key", "/api/v1/users/bob", "/api/v1/projects/bobs", "/api/v1/projects/bobs/members",
        "/api/v1/usage?project=bobs&user=bob&key=bob-key", "/api/v1/requests?project=bobs",
        "/api/v1/limits?key=bob-key&project=bobs&user=bob", "/api/v1/limits/explain?key=bob-key",
    ):  # fmt: skip
        assert client.get(path).status_code == 200, path
    searched = client.get("/api/v1/limits?search=BOB&subject=project").json()["data"]
    assert [(row["subject"], row["name"]) for row in searched] == [("project", "bobs")]


def test_owasp_api1_members_of_one_project_see_it_and_nothing_else_of_each_other(
    tenants: Tenants, make_server: MakeServer
) -> None:
    """Viewers see calls and usage of the project only; a colleague's other project stays hidden."""
    server = make_server().start()
    for name in ("ada", "bob"):
        server.admin("POST", "/api/v1/users", {"name": name})
    server.admin("POST", "/api/v1/projects", {"name": "shared", "owner": "ada"})
    server.admin("POST", "/api/v1/projects/shared/members", {"user": "bob", "role": "viewer"})
    inside = server.make_key("inside", user="ada", project="shared")
    private = server.make_key("private", user="ada")
    bob = server.make_key("bobs", user="bob", scopes=SCOPES)
    for key in (inside, inside, private):
        assert post(server.port, "/v1/chat/completions", chat(model="lingpai/eliza"), key=key).status == 200

    with httpx2.Client(
        base_url=server.base, headers={"authorization": f"Bearer {bob}"}, trust_env=False
    ) as client:
        usage = client.get("/api/v1/usage", params={"by": "user,project,key"}).json()["data"]
        requests = client.get("/api/v1/requests").json()["data"]
        keys = client.get("/api/v1/keys").json()["data"]
        limits = client.get("/api/v1/limits").json()
        refused = client.post("/api/v1/keys", json={"name": "more", "project": "shared"})

    assert [(row["user"], row["project"], row["key"], row["requests"]) for row in usage] == [
        ("ada", "shared", "inside", 2)
    ]
    assert len(requests) == 2
    assert {key["name"] for key in keys} == {"inside", "bobs"}
    assert "private" not in json.dumps([usage, requests, keys, limits])
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
