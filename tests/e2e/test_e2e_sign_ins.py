"""Programs that have signed in: seen with where they came from, and ended with all of their tokens."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client_tokens import delete
from tests.e2e.oauth_server import TOKEN, OAuthServer
from tests.e2e.raw_http import exchange, get, post_bytes

PASSWORD = "alices horse battery staple"
ALL = "model:inference tokens:read tokens:write"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    server = OAuthServer(tmp_path_factory.mktemp("sign-ins"), people={}).start()
    yield server
    server.stop()


class Person:
    """Somebody new, and what they do."""

    def __init__(self, server: OAuthServer) -> None:
        self._server = server
        self.name = server.make_person(f"person-{next(_numbers)}", PASSWORD)

    def sign_in(self, **form: str) -> Any:
        user = {"grant_type": "password", "username": self.name, "password": PASSWORD}
        answer = self._server.form(TOKEN, user | form, headers=("user-agent: notebook/1.0",))
        assert answer.status == 200, answer.body
        return answer.json

    def listed(self, token: str) -> Any:
        return get(self._server.port, "/api/v1/tokens", key=token).json["data"]


@pytest.fixture
def person(server: OAuthServer) -> Person:
    return Person(server)


def test_sign_in_is_seen_refreshed_and_ended(server: OAuthServer, person: Person) -> None:
    """Ended: neither its access tokens nor its refresh token do anything any more, from the next request on."""
    watching = person.sign_in(scope=ALL)["access_token"]
    notebook = person.sign_in(scope="model:inference")
    assert server.call(notebook["access_token"]).status == 200
    [_, before] = sorted(person.listed(watching), key=lambda token: "tokens:read" not in token["scopes"])
    refreshed = server.refresh(notebook["refresh_token"]).json
    [after] = [token for token in person.listed(watching) if token["id"] == before["id"]]

    assert (before["kind"], before["user"], before["client"]) == ("family", person.name, None)
    assert (before["address"], before["user_agent"]) == ("127.0.0.1", "notebook/1.0")
    assert (before["scopes"], before["refreshed_at"]) == (["model:inference"], None)
    assert after["refreshed_at"] is not None
    assert server.call(refreshed["access_token"]).status == 200

    assert delete(server, f"/api/v1/tokens/{before['id']}", watching) == 204

    for token in (notebook["access_token"], refreshed["access_token"]):
        assert server.call(token).status == 401
    late = server.refresh(refreshed["refresh_token"])
    assert (late.status, late.json["error"]) == (400, "invalid_grant")
    assert before["id"] not in {token["id"] for token in person.listed(watching)}
    assert delete(server, f"/api/v1/tokens/{before['id']}", watching) == 404


def test_reused_refresh_token_takes_its_sign_in_off_the_list(server: OAuthServer, person: Person) -> None:
    """RFC 9700 section 4.14: nobody can tell the thief from the owner."""
    watching = person.sign_in(scope=ALL)["access_token"]
    stolen = person.sign_in()["refresh_token"]
    newest = server.refresh(stolen).json
    assert len(person.listed(watching)) == 2

    assert server.refresh(stolen).json["error"] == "invalid_grant"

    assert len(person.listed(watching)) == 1
    assert server.call(newest["access_token"]).status == 401
    assert server.refresh(newest["refresh_token"]).status == 400


@pytest.mark.parametrize("by", ["an administrator", "the command", "themselves"])
def test_rfc9700_s4_14_2_signing_out_everywhere_ends_programs(
    server: OAuthServer, person: Person, by: str
) -> None:
    """Access tokens and refresh tokens of every client from the next request on; keys, and others, stay."""
    agent = server.make_client(
        f"agent of {person.name}", grants=["client_credentials", "password", "refresh_token"]
    )
    key = server.make_key(f"key of {person.name}", user=person.name)
    others = Person(server).sign_in()
    alone, through = person.sign_in(), person.sign_in(**agent.form)
    own = server.token(agent)["access_token"]
    before = [alone["access_token"], through["access_token"], own, key, others["access_token"]]
    assert [server.call(token).status for token in before] == [200] * 5

    sign_out_everywhere(server, person, by)

    assert [server.call(token).status for token in before] == [401, 401, 200, 200, 200]
    for tokens, client in ((alone, None), (through, agent)):
        late = server.refresh(tokens["refresh_token"], client)
        assert (late.status, late.json["error"]) == (400, "invalid_grant")
    assert server.refresh(others["refresh_token"]).status == 200
    deeds = server.admin("GET", f"/api/v1/audit?target={person.name}")["data"]
    assert ("token.revoke", {"programs": 2}) in [(deed["action"], deed["before"]) for deed in deeds]
    assert server.call(person.sign_in()["access_token"]).status == 200


def sign_out_everywhere(server: OAuthServer, person: Person, by: str) -> None:
    path = "/api/v1/sessions"
    if by == "the command":
        said = server.cli("users", "sign-out", person.name).stderr
        assert said == f"Ended 0 sessions and 2 programs of {person.name}.\n"
    elif by == "an administrator":
        assert server.admin("DELETE", f"{path}?user={person.name}") == {"ended": 0, "programs": 2}
    else:
        key = server.make_key(f"their own {by}", user=person.name, scopes=["sessions:write"])
        assert delete(server, path, key) == 200


def test_signing_out_of_one_session_leaves_programs_alone(server: OAuthServer, person: Person) -> None:
    """Closing a browser does not stop a program that was signed in beside it."""
    tokens = person.sign_in()
    page = ("sec-fetch-site: same-origin",)
    body = {"name": person.name, "password": PASSWORD}
    assert exchange(server.port, post_bytes("/api/v1/sessions", body, headers=page)).status == 201
    [session] = server.admin("GET", f"/api/v1/sessions?user={person.name}")["data"]

    server.admin("DELETE", f"/api/v1/sessions/{session['id']}")

    assert server.admin("GET", f"/api/v1/sessions?user={person.name}")["data"] == []
    assert server.call(tokens["access_token"]).status == 200
    assert server.refresh(tokens["refresh_token"]).status == 200
