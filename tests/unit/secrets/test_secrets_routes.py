"""`/api/v1/secrets`: for administrators on the admin socket, recorded, and never with a secret in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from secrets_fakes import Clock, Trail, Uses
from sqlalchemy.exc import OperationalError
from starlette.requests import Request

from lingpai.identity.peppers import Peppers
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.principal import Principal
from lingpai.secrets.numbered import NumberedSecrets
from lingpai.secrets.routes import secret_routes
from lingpai.secrets.service import Secrets
from lingpai.secrets.token_keys import TokenKeys
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys
from lingpai.web.errors import install_error_handlers

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def uses() -> Uses:
    return Uses()


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture
def secrets(
    *, database: Database, peppers: Peppers, root_keys: RootKeys, token_keys: TokenKeys, trail: Trail, uses: Uses,
    clock: Clock, changed: list[str],
) -> Secrets:  # fmt: skip
    kinds = {
        "pepper": NumberedSecrets("pepper", peppers, [uses], clock=clock),
        "root": NumberedSecrets("root", root_keys, [], clock=clock),
        "signing": token_keys,
    }
    return Secrets(database, kinds, trail=trail, on_change=changed.append)  # type: ignore[arg-type]


@pytest.fixture
def ask(secrets: Secrets) -> Ask:
    app = FastAPI()
    app.include_router(secret_routes(secrets))
    install_error_handlers(app)
    client = TestClient(app)

    def ask(
        method: str, path: str = "", json: Any = None, *, is_local: bool = True, scopes: Any = ALL_SCOPES
    ) -> tuple[int, Any]:
        async def authenticate(request: Request) -> Principal:
            request.state.is_local = is_local
            return Principal("usr_1", "ada", "admin", scopes=frozenset(scopes))

        app.state.authenticate = authenticate
        answer = client.request(method, f"/api/v1/secrets{path}", json=json)
        return answer.status_code, answer.json() if answer.content else None

    return ask


def test_list_has_every_version_and_no_secret(ask: Ask, tmp_path: Path, token_keys: TokenKeys) -> None:
    private_key = token_keys.current("EdDSA").private_key
    status, body = ask("GET")

    assert status == 200
    assert [(each["kind"], each["state"]) for each in body["data"]] == [
        ("pepper", "current"),
        ("root", "current"),
        ("signing", "current"),
    ]
    assert set(body["data"][0]) == {
        "kind", "version", "state", "algorithm", "place", "created_at", "use_from", "verify_until", "uses",
    }  # fmt: skip
    said = str(body)
    for file in (tmp_path / "secrets").glob("*.json"):
        assert file.read_text().split('"')[5] not in said
    assert private_key.hex() not in said


def test_rotating_makes_a_version_and_is_recorded(
    ask: Ask, peppers: Peppers, trail: Trail, changed: list[str]
) -> None:
    status, body = ask("POST", "/pepper/rotate", {})

    assert status == 201
    assert [(each["version"], each["state"]) for each in body["data"]] == [("2", "current")]
    assert peppers.newest_version == 2
    assert trail.deeds == [("secret.rotate", "pepper 2")]
    assert changed == ["pepper"]


def test_retiring_takes_a_version_away_and_is_recorded(
    ask: Ask, peppers: Peppers, trail: Trail, clock: Clock, uses: Uses
) -> None:
    ask("POST", "/pepper/rotate", {})
    clock.now += 60
    uses.counted = {1: 2}
    refused = ask("DELETE", "/pepper/1")
    uses.counted = {}
    done = ask("DELETE", "/pepper/1")

    assert refused[0] == 400
    assert "API keys: 2" in refused[1]["error"]["message"]
    assert done == (204, None)
    assert list(peppers.versions()) == [2]
    assert trail.deeds[-1] == ("secret.retire", "pepper 1")


def test_what_cannot_be_recorded_is_not_retired(
    ask: Ask, peppers: Peppers, trail: Trail, clock: Clock
) -> None:
    ask("POST", "/pepper/rotate", {})
    clock.now += 60
    trail.fault = OperationalError("INSERT", {}, Exception("disk I/O error"))

    retired = ask("DELETE", "/pepper/1")
    rotated = ask("POST", "/signing/rotate", {})

    assert retired[0] == 503
    assert rotated[0] == 400  # there is none yet
    assert 1 in peppers


def test_leaked_signing_keys_end_at_once(ask: Ask, token_keys: TokenKeys) -> None:
    old = token_keys.current("EdDSA").id

    status, body = ask("POST", "/signing/rotate", {"leaked": True})

    assert status == 201
    assert body["data"][0]["state"] == "current"
    assert body["data"][0]["version"] != old
    with token_keys._database.read() as connection:
        assert [each.version for each in token_keys.versions(connection)] == [body["data"][0]["version"]]


@pytest.mark.parametrize(
    ("method", "path", "json"),
    [("GET", "", None), ("POST", "/pepper/rotate", {}), ("DELETE", "/pepper/1", None)],
)
def test_only_the_admin_socket_may(ask: Ask, peppers: Peppers, method: str, path: str, json: Any) -> None:
    status, body = ask(method, path, json, is_local=False)

    assert status == 403
    assert "on its own machine only" in body["error"]["message"]
    assert peppers.newest_version == 1
    assert ask(method, path, json, scopes=["keys:write"])[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "param"),
    [
        ("POST", "/passwords/rotate", {}, 400, "kind"),
        ("POST", "/pepper/rotate", {"leaked": "yes"}, 400, "leaked"),
        ("POST", "/pepper/rotate", {"value": "x"}, 400, "value"),
        ("POST", "/signing/rotate", {}, 400, "kind"),
        ("DELETE", "/pepper/7", None, 404, "version"),
        ("DELETE", "/signing/tsk_1", None, 404, "version"),
    ],
)
def test_bad_requests_name_the_field(
    *, ask: Ask, method: str, path: str, json: Any, status: int, param: str
) -> None:
    answered, body = ask(method, path, json)

    assert (answered, body["error"]["param"]) == (status, param)
