"""A client is never more than who makes, changes or rotates it: with its secret everybody can do all that it can."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from identity_fakes import NOW
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.identity.oauth.client_routes import client_routes
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate, SecretRotation
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import ProjectCreate, utc_text
from lingpai.identity.scopes import SCOPES_OF_ROLE
from lingpai.principal import Principal
from lingpai.web.errors import install_error_handlers

OWN_EXPIRY = NOW + 86_400
EARLIER, SAME, LATER = (utc_text(OWN_EXPIRY + seconds) for seconds in (-60, 0, 60))
NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/25", "2001:db8::/32")))
RESTRICTIONS: dict[str, dict[str, Any]] = {
    "scopes": {"scopes": frozenset({"clients:read", "clients:write", "model:inference"})},
    "models": {"models": ("acme/*",)},
    "networks": {"allowed_ips": NETWORKS},
    "expiry": {"expires_at": OWN_EXPIRY},
    "limits": {"key_limits": ("5/day",)},
    "token limits": {"key_id": None, "token_id": "t", "client_limits": ("5/day",)},
    "project": {"project_id": "prj_bobs", "project_name": "bobs", "project_limits": ("5/day",)},
}
Refusal = tuple[str, str | None]
MakeClient = Callable[..., Client]


@pytest.fixture
def bob(member: Callable[..., Principal]) -> Principal:
    return member("bob")


@pytest.fixture
def existing(clients: Clients, admin: Principal, bob: Principal) -> MakeClient:
    """Makes a client of bob's that can do all that bob can, except what is given."""

    def make(**fields: Any) -> Client:
        body = {
            "name": "old",
            "user": "bob",
            "limits": ["none"],
            "scopes": sorted(SCOPES_OF_ROLE["member"]),
            **fields,
        }
        return clients.create(admin, ClientCreate(**body)).client

    return make


def restricted(caller: Principal, restriction: str) -> Principal:
    return replace(caller, **RESTRICTIONS[restriction])


def refusal(action: Callable[[], object]) -> Refusal:
    with pytest.raises(LingpaiError) as caught:
        action()
    return caught.value.code, caught.value.param


NEW_BEYOND: list[tuple[str, dict[str, Any], Refusal]] = [
    ("scopes", {"scopes": ["usage:read"]}, ("insufficient_scope", "scopes")),
    ("models", {"models": ["other/x"]}, ("model_not_allowed", "models")),
    ("models", {"models": ["acme/*", "other/x"]}, ("model_not_allowed", "models")),
    ("networks", {"allowed_ips": ["10.0.0.1", "192.0.2.1"]}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["::/0"]}, ("invalid_request", "allowed_ips")),
    ("expiry", {"expires_at": LATER}, ("invalid_request", "expires_at")),
    ("expiry", {"expires_in": "2d"}, ("invalid_request", "expires_in")),
    ("limits", {}, ("insufficient_scope", None)),
    ("limits", {"limits": ["1/day"]}, ("insufficient_scope", None)),
    ("token limits", {}, ("insufficient_scope", None)),
    ("project", {}, ("insufficient_scope", "project")),
]
BEYOND: list[tuple[str, dict[str, Any], Refusal]] = [
    ("models", {"models": []}, ("model_not_allowed", "models")),
    ("models", {"models": ["other/x"]}, ("model_not_allowed", "models")),
    ("networks", {"allowed_ips": []}, ("invalid_request", "allowed_ips")),
    ("networks", {"allowed_ips": ["192.0.2.1"]}, ("invalid_request", "allowed_ips")),
    ("expiry", {"expires_at": None}, ("invalid_request", "expires_at")),
    ("expiry", {"expires_at": LATER}, ("invalid_request", "expires_at")),
    ("limits", {"limits": ["none"]}, ("insufficient_scope", "limits")),
    ("token limits", {"limits": ["9/day"]}, ("insufficient_scope", "limits")),
]
WITHIN: list[tuple[str, dict[str, Any]]] = [
    ("scopes", {"scopes": ["model:inference"]}),
    ("models", {"models": ["acme/x"]}),
    ("networks", {"allowed_ips": ["10.0.0.7", "2001:db8:1::/48"]}),
    ("expiry", {"expires_at": SAME}),
    ("expiry", {"expires_at": EARLIER}),
]


class TestMaking:
    @pytest.mark.parametrize(("restriction", "fields", "refused"), NEW_BEYOND)
    def test_member_makes_no_client_beyond_their_own_credential(
        self, clients: Clients, bob: Principal, restriction: str, fields: Any, refused: Refusal
    ) -> None:
        caller = restricted(bob, restriction)

        assert refusal(lambda: clients.create(caller, ClientCreate(name="new", **fields))) == refused
        assert clients.list(caller) == []

    @pytest.mark.parametrize(("restriction", "fields"), WITHIN)
    def test_client_within_ones_own_can_be_made(
        self, clients: Clients, bob: Principal, restriction: str, fields: Any
    ) -> None:
        made = clients.create(restricted(bob, restriction), ClientCreate(name="new", **fields))

        assert made.client.user_name == "bob"

    def test_what_is_left_out_comes_from_the_member_s_credential(
        self, clients: Clients, bob: Principal
    ) -> None:
        caller = replace(bob, expires_at=OWN_EXPIRY, allowed_ips=NETWORKS, models=("acme/*",))

        client = clients.create(caller, ClientCreate(name="new")).client

        assert (client.expires_at, client.models) == (OWN_EXPIRY, ("acme/*",))
        assert client.allowed_ips == tuple(map(str, NETWORKS))
        assert (client.scopes, client.limits) == (("model:inference",), ())

    @pytest.mark.parametrize("scope", sorted(SCOPES_OF_ROLE["admin"] - SCOPES_OF_ROLE["member"]))
    def test_no_client_of_a_member_has_a_scope_for_administrators(
        self, clients: Clients, admin: Principal, bob: Principal, scope: str
    ) -> None:
        body = ClientCreate(name="new", user="bob", scopes=[scope])

        assert refusal(lambda: clients.create(bob, body)) == ("insufficient_scope", "scopes")
        assert refusal(lambda: clients.create(admin, body)) == ("invalid_request", "scopes")

    def test_rfc9700_s2_4_only_administrators_let_a_client_use_passwords(
        self, clients: Clients, admin: Principal, bob: Principal
    ) -> None:
        body = ClientCreate(name="new", grants=["password", "refresh_token"])

        assert refusal(lambda: clients.create(bob, body)) == ("insufficient_scope", "grants")
        assert clients.create(admin, body).client.grants == ("password", "refresh_token")

    def test_member_makes_none_for_somebody_else_nor_in_their_project(
        self, clients: Clients, projects: Projects, admin: Principal, bob: Principal
    ) -> None:
        projects.create(admin, ProjectCreate(name="search"))

        of_admin, in_search = (
            refusal(lambda fields=fields: clients.create(bob, ClientCreate(name="new", **fields)))
            for fields in ({"user": "admin"}, {"project": "search"})
        )

        assert (of_admin, in_search) == (("not_found", "user"), ("not_found", "project"))

    def test_member_makes_none_without_any_limit(self, clients: Clients, bob: Principal) -> None:
        body = ClientCreate(name="new", limits=["none"])

        assert refusal(lambda: clients.create(bob, body))[0] == "insufficient_scope"


class TestChanging:
    @pytest.mark.parametrize(("restriction", "fields", "refused"), BEYOND)
    def test_member_changes_none_beyond_their_own_credential(
        self, clients: Clients, bob: Principal, existing: MakeClient, *, restriction: str, fields: Any, refused: Any
    ) -> None:  # fmt: skip
        before = existing(models=["acme/x"], allowed_ips=["10.0.0.1"], expires_at=EARLIER)
        caller = restricted(bob, restriction)

        assert refusal(lambda: clients.update(caller, "old", ClientUpdate(**fields))) == refused
        assert clients.get(caller, "old") == before

    def test_member_adds_no_scope_they_do_not_hold(
        self, clients: Clients, bob: Principal, existing: MakeClient
    ) -> None:
        existing(scopes=["model:inference"])
        caller = restricted(bob, "scopes")

        change = ClientUpdate(scopes=["model:inference", "usage:read"])

        assert refusal(lambda: clients.update(caller, "old", change)) == ("insufficient_scope", "scopes")

    @pytest.mark.parametrize(("restriction", "fields"), WITHIN)
    def test_client_can_be_narrowed_to_what_is_within_ones_own(
        self, clients: Clients, bob: Principal, existing: MakeClient, restriction: str, fields: Any
    ) -> None:
        existing()

        assert clients.update(restricted(bob, restriction), "old", ClientUpdate(**fields)).name == "old"

    def test_member_neither_lifts_limits_nor_enables_nor_allows_passwords(
        self, clients: Clients, admin: Principal, bob: Principal, existing: MakeClient
    ) -> None:
        existing(limits=["5/day"])
        clients.update(admin, "old", ClientUpdate(disabled=True))

        refused = [
            refusal(lambda change=change: clients.update(bob, "old", ClientUpdate(**change)))
            for change in ({"limits": ["9/day"]}, {"disabled": False}, {"grants": ["password"]})
        ]

        assert [code for code, _ in refused] == ["insufficient_scope"] * 3
        assert clients.update(bob, "old", ClientUpdate(limits=["5/day", "1/1s"])).limits == ("5/day", "1/1s")

    def test_member_keeps_the_passwords_that_an_administrator_has_allowed(
        self, clients: Clients, bob: Principal, existing: MakeClient
    ) -> None:
        existing(grants=["password"])

        changed = clients.update(bob, "old", ClientUpdate(grants=["password", "refresh_token"]))

        assert changed.grants == ("password", "refresh_token")

    def test_client_cannot_free_itself(self, clients: Clients, bob: Principal, existing: MakeClient) -> None:
        """With a token of its own that may change clients."""
        own = existing(limits=["5/day"], allowed_ips=["10.0.0.0/25"], expires_at=SAME)
        token = replace(
            restricted(bob, "token limits"),
            client_id=own.client_id,
            allowed_ips=NETWORKS[:1],
            expires_at=OWN_EXPIRY,
        )

        for change in ({"allowed_ips": []}, {"expires_at": None}, {"limits": ["none"]}):
            asked = ClientUpdate(**change)
            assert refusal(lambda asked=asked: clients.update(token, "old", asked))[1] == next(iter(change))
        assert clients.get(bob, "old") == own


class TestRotating:
    @pytest.mark.parametrize("restriction", RESTRICTIONS)
    def test_member_gets_no_secret_that_can_do_more_than_their_own_credential(
        self, clients: Clients, bob: Principal, existing: MakeClient, restriction: str
    ) -> None:
        before = existing()
        caller = restricted(bob, restriction)

        refused = refusal(lambda: clients.rotate(caller, "old", SecretRotation()))

        assert refused[0] in {"insufficient_scope", "model_not_allowed", "invalid_request"}
        assert clients.get(bob, "old") == before

    def test_unrestricted_member_does(self, clients: Clients, bob: Principal, existing: MakeClient) -> None:
        before = existing()

        rotated = clients.rotate(bob, "old", SecretRotation(overlap="1h"))

        assert rotated.secret is not None
        assert (rotated.client.old_hint, rotated.client.old_expires_at) == (before.hint, NOW + 3600)

    def test_secret_within_a_narrowed_credential_can_be_replaced(
        self, clients: Clients, bob: Principal, existing: MakeClient
    ) -> None:
        existing(scopes=["model:inference"], models=["acme/x"])
        caller = replace(restricted(bob, "scopes"), models=("acme/*",))

        assert clients.rotate(caller, "old", SecretRotation()).secret is not None


class TestOtherTenants:
    @pytest.fixture
    def http(self, clients: Clients, bob: Principal, member: Callable[..., Principal]) -> TestClient:
        callers = {"bob": bob, "eve": member("eve")}
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(client_routes(clients))

        async def authenticate(request: Request) -> Principal:
            return callers[request.headers["x-caller"]]

        app.state.authenticate = authenticate
        return TestClient(app)

    @pytest.mark.parametrize("how", ["client_id", "name"])
    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "", None),
            ("PATCH", "", {"disabled": True}),
            ("PATCH", "", {"name": "taken", "limits": ["none"]}),
            ("POST", "/rotate", {"overlap": "0s"}),
            ("DELETE", "", None),
        ],
    )
    def test_client_of_another_is_answered_as_one_that_is_not_there(
        self, http: TestClient, clients: Clients, bob: Principal, existing: MakeClient, *, method: str, path: str,
        body: Any, how: str,
    ) -> None:  # fmt: skip
        before = existing()
        names = {"client_id": (before.client_id, "cl-lp-000000000000"), "name": ("old", "oldest")}[how]

        answers = [
            http.request(method, f"/api/v1/clients/{name}{path}", json=body, headers={"x-caller": "eve"})
            for name in names
        ]

        said = [answer.text.replace(name, "X") for answer, name in zip(answers, names, strict=True)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert said[0] == said[1]
        assert clients.get(bob, "old") == before

    def test_list_holds_ones_own_only(self, http: TestClient, existing: MakeClient) -> None:
        existing()

        def listed(caller: str, query: str = "") -> Any:
            answer = http.get(f"/api/v1/clients{query}", headers={"x-caller": caller})
            return answer.status_code if answer.status_code != 200 else len(answer.json()["data"])

        assert (listed("bob"), listed("eve")) == (1, 0)
        assert (listed("eve", "?user=bob"), listed("eve", "?project=bob")) == (404, 404)

    @pytest.mark.parametrize("field", ["id", "client_id", "secret_hmac", "created_at", "user_id", "is_admin"])
    def test_fields_that_are_not_offered_are_refused(self, http: TestClient, field: str) -> None:
        answer = http.post("/api/v1/clients", json={"name": "x", field: "y"}, headers={"x-caller": "bob"})

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
