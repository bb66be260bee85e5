"""Programs that have signed in: seen with where they came from, and ended with all of their tokens."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client_tokens import delete
from tests.e2e.oauth_server import TOKEN, OAuthServer
from tests.e2e.raw_http import get

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
