"""OAuth clients and roles in projects: who makes, sees and changes them, and what ends with a role, on the next call."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.e2e.oauth_server import INTROSPECT, TOKEN, Client, OAuthServer, is_oauth_error

SCOPES = ["clients:read", "clients:write", "tokens:read", "limits:read", "usage:read", "model:inference"]
INACTIVE = {"active": False}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def gateway(oauth: OAuthServer) -> Client:
    """Somebody's own server that may ask about all tokens."""
    return oauth.make_client("gateway", scopes=["tokens:introspect"])


@dataclass
class Project:
    """A shared project, alice's to look after, with bob as a member."""

    server: OAuthServer
    name: str

    def set_role(self, user: str, role: str | None) -> None:
        path = f"/api/v1/projects/{self.name}/members"
        if role is None:
            self.server.admin("DELETE", f"{path}/{user}")
        else:
            self.server.admin("PATCH", f"{path}/{user}", {"role": role})

    def add(self, user: str) -> None:
        self.server.admin("POST", f"/api/v1/projects/{self.name}/members", {"user": user, "role": "member"})


@pytest.fixture
def project(oauth: OAuthServer) -> Project:
    name = f"search-{next(NUMBERS)}"
    oauth.admin("POST", "/api/v1/projects", {"name": name, "owner": "alice"})
    project = Project(oauth, name)
    project.add("bob")
    return project


@pytest.fixture
def bob(oauth: OAuthServer) -> Iterator[httpx2.Client]:
    """The management API as bob sees it."""
    key = oauth.make_key(f"bobs-{next(NUMBERS)}", user="bob", scopes=SCOPES)
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=oauth.base, headers=headers, trust_env=False, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    ("role", "made", "others"), [("viewer", 403, 403), ("member", 201, 403), ("admin", 201, 200), (None, 404, 404)]
)  # fmt: skip
def test_who_makes_clients_in_a_project_and_switches_those_of_others_off(
    oauth: OAuthServer, project: Project, bob: httpx2.Client, *, role: str | None, made: int, others: int
) -> None:
    name = f"alices-{project.name}"
    theirs = oauth.make_client(name, user="alice", project=project.name)
    if role != "member":
        project.set_role("bob", role)

    new = bob.post("/api/v1/clients", json={"name": f"new-{project.name}", "project": project.name})
    seen = bob.get(f"/api/v1/clients/{theirs.id}")
    rotated = bob.post(f"/api/v1/clients/{theirs.id}/rotate", json={})
    disabled = bob.patch(f"/api/v1/clients/{theirs.id}", json={"disabled": True})

    is_stranger = role is None
    assert (new.status_code, disabled.status_code) == (made, others), (new.text, disabled.text)
    assert (seen.status_code, rotated.status_code) == ((404, 404) if is_stranger else (200, 403))
    assert (name in bob.get("/api/v1/clients").text) is not is_stranger
    assert oauth.admin("GET", f"/api/v1/clients/{theirs.id}")["disabled"] is (role == "admin")


def test_colleague_sees_a_clients_limits_and_usage_in_the_project_and_not_what_holds_its_owner_back(
    oauth: OAuthServer, project: Project, bob: httpx2.Client
) -> None:
    theirs = oauth.make_client(
        f"alices-{project.name}", user="alice", project=project.name, limits=["50/day"]
    )
    assert oauth.call(oauth.token(theirs)["access_token"]).status == 200

    limits = bob.get("/api/v1/limits", params={"client": theirs.id})
    usage = bob.get("/api/v1/usage", params={"client": theirs.id})
    explained = bob.get("/api/v1/limits/explain", params={"client": theirs.id})
    tokens = bob.get("/api/v1/tokens", params={"client": theirs.id})

    assert [row["limit"] for row in limits.json()["data"]] == ["50/day"]
    assert [row["requests"] for row in usage.json()["data"]] == [1]
    assert (explained.status_code, explained.json()["error"]["param"]) == (403, "client")
    assert (tokens.status_code, tokens.json()["data"]) == (200, [])  # whom they act for is alice's own affair


LOSSES: dict[str, Callable[[OAuthServer, Project], None]] = {
    "removed": lambda _, project: project.set_role("bob", None),
    "viewer": lambda _, project: project.set_role("bob", "viewer"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_tokens_stop_with_the_role_of_the_clients_owner_and_come_back_with_it(
    oauth: OAuthServer, project: Project, gateway: Client, loss: str
) -> None:
    client = oauth.make_client(f"nightly-{project.name}", user="bob", project=project.name)
    token = oauth.token(client)["access_token"]
    assert oauth.call(token).status == 200
    assert oauth.introspect(gateway, token)["active"]

    LOSSES[loss](oauth, project)

    refused = oauth.call(token)
    assert (refused.status, refused.error["code"]) == (401, "key_disabled")
    assert "role" in refused.error["message"]
    assert oauth.introspect(gateway, token) == INACTIVE
    grant = {"grant_type": "client_credentials"}
    assert is_oauth_error(oauth.form(TOKEN, grant, basic=client.basic), 401, "invalid_client")
    own_question = oauth.form(INTROSPECT, {"token": token}, basic=client.basic)
    assert is_oauth_error(own_question, 401, "invalid_client")
    shown = oauth.admin("GET", f"/api/v1/clients/{client.id}")
    assert (shown["disabled"], shown["disabled_because"]) == (
        False,
        "its owner may not have clients in its project",
    )

    if loss == "removed":
        project.add("bob")
    else:
        project.set_role("bob", "member")

    assert oauth.call(token).status == 200
    assert oauth.introspect(gateway, token)["active"]
    assert oauth.call(oauth.token(client)["access_token"]).status == 200


def test_sign_in_through_a_colleagues_client_stops_with_the_colleagues_role(
    oauth: OAuthServer, project: Project, gateway: Client
) -> None:
    client = oauth.make_client(
        f"desktop-{project.name}", user="bob", project=project.name, grants=["password", "refresh_token"]
    )
    signed_in = oauth.sign_in("alice", client)
    assert oauth.call(signed_in["access_token"]).status == 200

    project.set_role("bob", "viewer")

    assert oauth.call(signed_in["access_token"]).status == 401
    assert oauth.introspect(gateway, signed_in["access_token"]) == INACTIVE
    assert oauth.introspect(gateway, signed_in["refresh_token"]) == INACTIVE
    assert is_oauth_error(oauth.refresh(signed_in["refresh_token"], client), 401, "invalid_client")

    project.set_role("bob", "admin")

    assert oauth.refresh(signed_in["refresh_token"], client).status == 200


def test_tokens_end_with_the_project(oauth: OAuthServer, project: Project, gateway: Client) -> None:
    client = oauth.make_client(f"nightly-{project.name}", user="bob", project=project.name)
    token = oauth.token(client)["access_token"]
    assert oauth.call(token).status == 200

    oauth.admin("DELETE", f"/api/v1/projects/{project.name}?force=true")

    refused = oauth.call(token)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert oauth.introspect(gateway, token) == INACTIVE
    grant = {"grant_type": "client_credentials"}
    assert is_oauth_error(oauth.form(TOKEN, grant, basic=client.basic), 401, "invalid_client")


def test_sign_in_through_a_colleagues_client_stops_with_the_colleague(
    oauth: OAuthServer, project: Project, gateway: Client
) -> None:
    oauth.admin("POST", "/api/v1/users", {"name": f"cleo-{project.name}"})
    cleo = f"cleo-{project.name}"
    client = oauth.make_client(f"desktop-{project.name}", user=cleo, grants=["password", "refresh_token"])
    token = oauth.sign_in("alice", client)["access_token"]
    assert oauth.call(token).status == 200

    oauth.admin("PATCH", f"/api/v1/users/{cleo}", {"disabled": True})

    assert oauth.call(token).error["code"] == "key_disabled"
    assert oauth.introspect(gateway, token) == INACTIVE
