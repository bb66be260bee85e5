"""The management API of keys, projects and users, as its callers see it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts
from identity_fakes import Clock
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.identity.member_routes import member_routes
from lingpai.identity.members import Members
from lingpai.identity.people import People
from lingpai.identity.projects import Projects
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.routes import key_routes, project_routes, user_routes
from lingpai.identity.secret_routes import rotation_routes
from lingpai.identity.service import Keys, Users
from lingpai.principal import Principal
from lingpai.web.auth import declared_scope
from lingpai.web.errors import install_error_handlers

Member = Callable[..., Principal]
KEY_FIELDS = {
    "id", "name", "user", "project", "scopes", "models", "limits", "allowed_ips", "expires_at", "created_at",
    "state", "disabled", "disabled_because", "signature_required", "last_used_at", "last_used_ip", "hint", "secrets",
}  # fmt: skip


@pytest.fixture
def callers(admin: Principal, member: Member) -> dict[str, Principal]:
    return {"admin": admin, "bob": member("bob"), "eve": member("eve")}


@pytest.fixture
def routers(
    *,
    keys: Keys,
    users: Users,
    projects: Projects,
    members: Members,
    rotation: KeyRotation,
    people: People,
) -> list[APIRouter]:
    return [
        rotation_routes(rotation),
        key_routes(keys),
        member_routes(members),
        project_routes(projects),
        user_routes(users, people),
    ]


@pytest.fixture
def app(routers: list[APIRouter], callers: dict[str, Principal]) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    for router in routers:
        app.include_router(router)

    async def authenticate(request: Request) -> Principal:
        try:
            return callers[request.headers["x-caller"]]
        except KeyError:
            raise LingpaiError("missing_api_key", "Send a key.") from None

    app.state.authenticate = authenticate
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, headers={"x-caller": "admin"}) as client:
        yield client


def refusal(answer: Any) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_making_a_key_shows_it_once_and_forbids_storing_the_answer(client: TestClient) -> None:
    answer = client.post(
        "/api/v1/keys",
        json={"name": "laptop", "limits": ["5/day"], "allowed_ips": ["10.0.0.1"], "expires_at": "2027-01-01"},
    )

    created = answer.json()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert set(created) == KEY_FIELDS | {"key"}
    assert created["key"].startswith("sk-lp-")
    assert created["created_at"] == "2026-11-18T11:06:40Z"
    assert created["expires_at"] == "2027-01-01T00:00:00Z"
    assert (created["user"], created["scopes"], created["disabled"]) == ("admin", ["model:inference"], False)
    assert (created["limits"], created["allowed_ips"]) == (["5/day"], ["10.0.0.1/32"])


def test_key_is_in_no_later_answer_and_in_no_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        token = client.post("/api/v1/keys", json={"name": "laptop"}).json()["key"]
        later = [
            client.get("/api/v1/keys"),
            client.get("/api/v1/keys/laptop"),
            client.patch("/api/v1/keys/laptop", json={"disabled": True}),
        ]

    secret = token[18:61]
    assert all(secret not in answer.text for answer in later)
    assert secret not in caplog.text


def test_list_show_change_and_delete(client: TestClient) -> None:
    made = client.post("/api/v1/keys", json={"name": "laptop"}).json()

    assert client.get("/api/v1/keys").json() == {
        "data": [client.get("/api/v1/keys/laptop").json()],
        "next_cursor": None,
    }
    assert set(client.get(f"/api/v1/keys/{made['id']}").json()) == KEY_FIELDS
    assert (
        client.patch("/api/v1/keys/laptop", json={"disabled": True, "name": "pc"}).json()["disabled"] is True
    )
    deleted = client.delete("/api/v1/keys/pc")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert refusal(client.get("/api/v1/keys/pc")) == (404, "not_found", None)


def test_expiry_can_be_taken_back_with_null(client: TestClient) -> None:
    client.post("/api/v1/keys", json={"name": "a", "expires_in": "90d"})

    assert client.patch("/api/v1/keys/a", json={}).json()["expires_at"] is not None
    assert client.patch("/api/v1/keys/a", json={"expires_at": None}).json()["expires_at"] is None


def test_pages_lead_through_all_keys(client: TestClient) -> None:
    for number in range(5):
        client.post("/api/v1/keys", json={"name": str(number)})

    seen, cursor, pages = [], "", 0
    while cursor is not None:
        page = client.get(f"/api/v1/keys?limit=2{cursor and '&cursor=' + cursor}").json()
        seen += [key["name"] for key in page["data"]]
        cursor, pages = page["next_cursor"], pages + 1

    assert (sorted(seen), pages) == (["0", "1", "2", "3", "4"], 3)


def names(answer: Any) -> set[str]:
    return {item["name"] for item in answer.json()["data"]}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("lap", {"laptop", "Laptop 2"}),
        ("%", {"50% off"}),
        ("_", {"a_b"}),
        ("/", set()),
        ("\\", {"back\\slash"}),
        ("%%%%%", set()),
        ("' OR 1=1 --", set()),
    ],
)
def test_keys_are_searched_by_a_part_of_their_name_without_wildcards(
    client: TestClient, search: str, found: set[str]
) -> None:
    """CVE-2026-25591: wildcards in a search must neither match everything nor cost anything."""
    for name in ("laptop", "Laptop 2", "50% off", "a_b", "axb", "back\\slash"):
        assert client.post("/api/v1/keys", json={"name": name}).status_code == 201

    assert names(client.get("/api/v1/keys", params={"search": search})) == found


def test_users_and_projects_are_searched_in_the_same_way(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "search_index", "owner": "bob"})
    client.post("/api/v1/users", json={"name": "bob_2"})
    client.patch("/api/v1/users/bob_2", json={"disabled": True})

    assert names(client.get("/api/v1/projects?search=_")) == {"search_index", "bob_2"}
    assert names(client.get("/api/v1/projects?user=bob")) == {"bob", "search_index"}
    assert names(client.get("/api/v1/users?search=BOB")) == {"bob", "bob_2"}
    assert names(client.get("/api/v1/users?search=bob&state=disabled")) == {"bob_2"}
    assert names(client.get("/api/v1/users?search=bob&state=active")) == {"bob"}
    assert names(client.get("/api/v1/users?search=%25")) == set()


def test_keys_are_filtered_by_state_user_project_and_scope(client: TestClient, clock: Clock) -> None:
    client.post("/api/v1/projects", json={"name": "search", "owner": "bob"})
    for body in (
        {"name": "works"},
        {"name": "off"},
        {"name": "short", "expires_in": "1h"},
        {"name": "bobs", "user": "bob", "project": "search", "scopes": ["usage:read"]},
        {"name": "eves", "user": "eve", "scopes": ["usage:read", "keys:read"]},
    ):
        assert client.post("/api/v1/keys", json=body).status_code == 201
    client.patch("/api/v1/keys/off", json={"disabled": True})
    client.patch("/api/v1/users/eve", json={"disabled": True})
    clock.now += 3600

    def found(query: str) -> set[str]:
        return names(client.get(f"/api/v1/keys?{query}"))

    assert found("state=active") == {"works", "bobs"}
    assert found("state=disabled") == {"off", "eves"}
    assert found("state=expired") == {"short"}
    assert found("user=bob") == found("project=search") == {"bobs"}
    assert found("scope=usage:read") == {"bobs", "eves"}
    assert found("scope=usage:read&state=active") == {"bobs"}
    shown = {key["name"]: key["state"] for key in client.get("/api/v1/keys").json()["data"]}
    assert shown == {
        "works": "active", "off": "disabled", "short": "expired", "bobs": "active", "eves": "disabled",
    }  # fmt: skip


def test_key_whose_owner_lost_their_role_is_listed_as_disabled(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "search"})
    client.post("/api/v1/projects/search/members", json={"user": "bob"})
    client.post("/api/v1/keys", json={"name": "bobs", "user": "bob", "project": "search"})
    assert names(client.get("/api/v1/keys?state=active")) == {"bobs"}

    client.delete("/api/v1/projects/search/members/bob")

    assert names(client.get("/api/v1/keys?state=disabled")) == {"bobs"}
    key = client.get("/api/v1/keys/bobs").json()
    assert (key["state"], key["disabled"]) == ("disabled", False)
    assert key["disabled_because"] == "its owner may not have keys in its project"


def test_pages_of_a_filtered_list_hold_everything_once(client: TestClient) -> None:
    for number in range(7):
        client.post("/api/v1/keys", json={"name": f"match-{number}"})
        client.post("/api/v1/keys", json={"name": f"other-{number}"})

    seen: list[str] = []
    cursor = None
    while True:
        params = {"search": "match", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/keys", params=params).json()
        seen += [key["name"] for key in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sorted(seen) == [f"match-{number}" for number in range(7)]


def test_users_are_filtered_by_role(client: TestClient) -> None:
    everybody = {user["name"]: user["role"] for user in client.get("/api/v1/users").json()["data"]}

    for role in ("admin", "member"):
        assert names(client.get("/api/v1/users", params={"role": role})) == {
            name for name, held in everybody.items() if held == role
        }
    assert set(everybody.values()) == {"admin", "member"}
    assert client.get("/api/v1/users?role=owner").status_code == 400


def test_members_are_searched_by_name_and_filtered_by_role(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "search", "owner": "bob"})
    client.post("/api/v1/projects/search/members", json={"user": "eve", "role": "viewer"})

    def found(**filters: str) -> set[str]:
        page = client.get("/api/v1/projects/search/members", params=filters)
        return {member["user"] for member in page.json()["data"]}

    assert found() == {"bob", "eve"}
    assert found(search="OB") == {"bob"}
    assert found(search="%") == set()
    assert found(role="viewer") == {"eve"}
    assert found(role="viewer", search="bob") == set()


def test_members_are_added_listed_changed_and_removed(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "search", "owner": "bob"})

    added = client.post("/api/v1/projects/search/members", json={"user": "eve", "role": "viewer"})
    listed = client.get("/api/v1/projects/search/members", headers={"x-caller": "eve"}).json()
    changed = client.patch("/api/v1/projects/search/members/eve", json={"role": "admin"})
    removed = client.delete("/api/v1/projects/search/members/eve")

    assert added.status_code == 201
    assert set(added.json()) == {"id", "user", "role", "disabled", "since"}
    assert {(each["user"], each["role"]) for each in listed["data"]} == {("bob", "admin"), ("eve", "viewer")}
    assert (changed.json()["role"], removed.status_code) == ("admin", 204)
    assert refusal(client.delete("/api/v1/projects/search/members/eve"))[:2] == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "user"), ({"user": "eve", "role": "owner"}, "role"), ({"user": "eve", "project": "x"}, "project")],
)
def test_wrong_members_are_refused(client: TestClient, body: dict[str, Any], param: str) -> None:
    client.post("/api/v1/projects", json={"name": "search"})

    assert refusal(client.post("/api/v1/projects/search/members", json=body)) == (
        400,
        "invalid_request",
        param,
    )


def test_rotating_shows_the_new_key_once_and_forbids_storing_the_answer(client: TestClient) -> None:
    made = client.post("/api/v1/keys", json={"name": "laptop"}).json()

    answer = client.post("/api/v1/keys/laptop/rotate", json={"overlap": "1h"})

    rotated = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert set(rotated) == KEY_FIELDS | {"key"}
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert len(rotated["secrets"]) == 2
    shown = client.get("/api/v1/keys/laptop").json()
    assert set(shown) == KEY_FIELDS
    assert not any(token[18:61] in str(shown) for token in (made["key"], rotated["key"]))
    assert refusal(client.post("/api/v1/keys/laptop/rotate", json={"overlap": "1y"}))[2] == "overlap"
    assert refusal(client.post("/api/v1/keys/laptop/rotate", json={"key": "mine"}))[2] == "key"


def test_project_is_deleted_with_force_only_when_it_has_keys(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "search"})
    client.post("/api/v1/keys", json={"name": "in it", "project": "search"})

    assert refusal(client.delete("/api/v1/projects/search")) == (400, "invalid_request", "force")
    assert client.delete("/api/v1/projects/search?force=true").status_code == 204
    assert refusal(client.get("/api/v1/projects/search"))[:2] == (404, "not_found")
    assert refusal(client.get("/api/v1/keys/in%20it"))[:2] == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("search=", "search"),
        (f"search={'x' * 65}", "search"),
        ("state=gone", "state"),
        ("scope=root", "scope"),
        ("project=nothing", "project"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("user=nobody", "user"),
    ],
)
def test_wrong_query_parameters_are_named(client: TestClient, query: str, param: str) -> None:
    answer = client.get(f"/api/v1/keys?{query}")

    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": 5}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "role": "admin"}, "role"),
        ({"name": "a", "user_id": "usr_x"}, "user_id"),
        ({"name": "a", "key": "sk-lp-mine"}, "key"),
        ({"name": "a", "scopes": "model:inference"}, "scopes"),
        ({"name": "a", "scopes": ["admin"]}, "scopes"),
        ({"name": "a", "scopes": [None]}, "scopes.0"),
        ({"name": "a", "models": ["x y"]}, "models"),
        ({"name": "a", "limits": ["lots"]}, "limits"),
        ({"name": "a", "limits": ["1/1s"] * 21}, "limits"),
        ({"name": "a", "allowed_ips": ["10.0.0.1/8"]}, "allowed_ips"),
        ({"name": "a", "expires_at": "2020-01-01"}, "expires_at"),
        ({"name": "a", "expires_at": 1798761600}, "expires_at"),
        ({"name": "a", "expires_in": "1y"}, "expires_in"),
    ],
)
def test_wrong_fields_are_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    assert refusal(client.post("/api/v1/keys", json=body)) == (400, "invalid_request", param)
    assert client.get("/api/v1/keys").json()["data"] == []


@pytest.mark.parametrize("field", ["name", "user", "expires_at", "scopes"])
def test_half_surrogate_pairs_are_refused_anywhere(client: TestClient, field: str) -> None:
    value = '["\\ud800"]' if field == "scopes" else '"\\ud800"'
    content = f'{{"name": "a", "{field}": {value}}}'.encode()

    answer = client.post("/api/v1/keys", content=content, headers={"content-type": "application/json"})

    assert refusal(answer)[:2] == (400, "invalid_request")


@pytest.mark.parametrize(
    "reference", ["'; DROP TABLE api_keys; --", "' OR '1'='1", "%", "_", "\x00", "é", "x" * 5000]
)
def test_hostile_references_are_unknown_keys(client: TestClient, reference: str) -> None:
    client.post("/api/v1/keys", json={"name": "a"})

    from urllib.parse import quote

    assert refusal(client.get(f"/api/v1/keys/{quote(reference, safe='')}")) == (404, "not_found", None)
    assert len(client.get("/api/v1/keys").json()["data"]) == 1


def test_name_with_odd_characters_can_stand_in_an_address(client: TestClient) -> None:
    from urllib.parse import quote

    name = "50% off? #1 & 令牌"
    client.post("/api/v1/keys", json={"name": name})

    assert client.get(f"/api/v1/keys/{quote(name, safe='')}").json()["name"] == name


def test_second_tenant_gets_the_same_answers_for_existing_and_unknown_things(client: TestClient) -> None:
    key_id = client.post("/api/v1/keys", json={"name": "mine"}, headers={"x-caller": "bob"}).json()["id"]
    eve = {"x-caller": "eve"}

    def answers(key: str, user: str) -> list[Any]:
        found = [
            client.get(f"/api/v1/keys/{key}", headers=eve),
            client.patch(f"/api/v1/keys/{key}", json={"disabled": True}, headers=eve),
            client.delete(f"/api/v1/keys/{key}", headers=eve),
            client.get(f"/api/v1/keys?user={user}", headers=eve),
            client.post("/api/v1/keys", json={"name": "x", "user": user}, headers=eve),
            client.get(f"/api/v1/users/{user}", headers=eve),
            client.get(f"/api/v1/projects/{user}", headers=eve),
            client.get(f"/api/v1/keys?project={user}", headers=eve),
            client.post("/api/v1/keys", json={"name": "x", "project": user}, headers=eve),
        ]
        return [
            (answer.status_code, answer.text.replace(key, "KEY").replace(user, "USER")) for answer in found
        ]

    assert answers(key_id, "bob") == answers("A" * 12, "zoe")
    assert {status for status, _ in answers(key_id, "bob")} == {404}


def test_members_reach_no_route_that_changes_users(client: TestClient) -> None:
    bob = {"x-caller": "bob"}

    assert refusal(client.post("/api/v1/users", json={"name": "x"}, headers=bob))[:2] == (
        403,
        "insufficient_scope",
    )
    assert refusal(client.patch("/api/v1/users/bob", json={"role": "admin"}, headers=bob))[:2] == (
        403,
        "insufficient_scope",
    )


def test_users_are_made_listed_shown_and_changed(client: TestClient) -> None:
    made = client.post("/api/v1/users", json={"name": "zoe"})

    assert made.status_code == 201
    assert made.json() == {
        "id": made.json()["id"], "name": "zoe", "role": "member", "limits": ["2000/day@Asia/Shanghai"],
        "disabled": False, "has_password": False, "created_at": "2026-11-18T11:06:40Z",
    }  # fmt: skip
    assert client.get("/api/v1/users/zoe").json() == client.get(f"/api/v1/users/{made.json()['id']}").json()
    changed = client.patch(
        "/api/v1/users/zoe", json={"disabled": True, "limits": ["1/1s"], "role": "admin"}
    ).json()
    assert (changed["disabled"], changed["limits"], changed["role"]) == (True, ["1/1s"], "admin")
    assert {user["name"] for user in client.get("/api/v1/users").json()["data"]} == {
        "admin",
        "bob",
        "eve",
        "zoe",
    }


def test_projects_are_made_listed_shown_and_changed(client: TestClient) -> None:
    made = client.post("/api/v1/projects", json={"name": "search", "owner": "bob", "limits": ["9/day"]})

    assert made.status_code == 201
    assert made.json() == {
        "id": made.json()["id"], "name": "search", "owner": "bob", "personal": False, "limits": ["9/day"],
        "created_at": "2026-11-18T11:06:40Z", "role": None,
    }  # fmt: skip
    assert client.get(f"/api/v1/projects/{made.json()['id']}").json() == made.json()
    changed = client.patch("/api/v1/projects/search", json={"name": "find", "limits": []}).json()
    assert (changed["name"], changed["limits"]) == ("find", [])
    listed = client.get("/api/v1/projects", headers={"x-caller": "bob"}).json()["data"]
    assert {(project["name"], project["personal"]) for project in listed} == {("bob", True), ("find", False)}


def test_pages_lead_through_all_projects(client: TestClient) -> None:
    first = client.get("/api/v1/projects?limit=2").json()
    second = client.get(f"/api/v1/projects?limit=2&cursor={first['next_cursor']}").json()

    assert {project["name"] for project in first["data"] + second["data"]} == {"admin", "bob", "eve"}
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a", "id": "prj_1"}, "id"),
        ({"name": "a", "is_personal": True}, "is_personal"),
        ({"name": "a", "limits": ["lots"]}, "limits"),
        ({"name": "a", "owner": 5}, "owner"),
    ],
)
def test_wrong_projects_are_refused(client: TestClient, body: dict[str, Any], param: str) -> None:
    assert refusal(client.post("/api/v1/projects", json=body)) == (400, "invalid_request", param)


def test_members_make_no_projects(client: TestClient) -> None:
    answer = client.post("/api/v1/projects", json={"name": "x"}, headers={"x-caller": "bob"})

    assert refusal(answer)[:2] == (403, "insufficient_scope")


@pytest.mark.parametrize(
    "body", [{"name": "a", "id": "usr_1"}, {"name": "a b"}, {"name": "a", "role": "root"}, {"name": None}]
)
def test_wrong_users_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert refusal(client.post("/api/v1/users", json=body))[:2] == (400, "invalid_request")


def test_every_route_declares_a_scope_of_its_own_resource(app: FastAPI) -> None:
    routes = [route for route in iter_route_contexts(app.routes) if str(route.path).startswith("/api/")]

    assert len(routes) == 20
    for route in routes:
        resource = str(route.path).split("/")[3]
        action = "read" if route.methods == {"GET"} else "write"
        assert declared_scope(route) == f"{resource}:{action}"


def test_openapi_document_describes_the_bodies(app: FastAPI) -> None:
    document = app.openapi()

    schemas = document["components"]["schemas"]
    assert schemas["KeyCreate"]["additionalProperties"] is False
    assert schemas["KeyCreate"]["required"] == ["name"]
    assert "key" in schemas["CreatedKeyView"]["properties"]
    assert "key" not in schemas["KeyView"]["properties"]
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["security"][0]["apiKey"]
            assert "4XX" in operation["responses"]
            assert operation["description"]
