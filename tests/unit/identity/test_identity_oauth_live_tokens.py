"""``/api/v1/tokens``: everybody sees and ends what acts for them, administrators see and end everything."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from identity_fakes import NOW, Changes, Clock
from sqlalchemy import event, insert, select
from starlette.testclient import TestClient

from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.live_token_routes import live_token_routes
from lingpai.identity.oauth.live_token_store import Place, SqlLiveTokenStore, Wanted
from lingpai.identity.oauth.live_tokens import LiveTokens
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate
from lingpai.identity.oauth.tables import access_tokens, refresh_tokens, token_families
from lingpai.identity.schemas import UserUpdate
from lingpai.identity.service import Users
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed
from lingpai.web.errors import install_error_handlers

HOUR, DAY = 3600.0, 86_400.0


class KeptDeeds:
    """A trail that remembers."""

    def __init__(self) -> None:
        self.deeds: list[tuple[str | None, Deed]] = []

    def record(self, connection: Any, caller: Principal | None, deed: Deed) -> None:
        self.deeds.append((None if caller is None else caller.user_name, deed))


class World:
    """A database with bob, eve and clients; tokens are put into it as they would come to be."""

    def __init__(self, database: Database, clients: Clients, callers: dict[str, Principal]) -> None:
        self.database = database
        self.clients = clients
        self.callers = callers
        self._numbers = iter(range(1000))

    def client(self, name: str, **fields: Any) -> str:
        return self.clients.create(self.callers["admin"], ClientCreate(name=name, **fields)).client.id

    def family(
        self,
        user: str,
        *,
        client: str | None = None,
        refreshed: float | None = None,
        can_refresh: bool = True,
        **fields: Any,
    ) -> str:
        """Of a sign-in: a used refresh token for each refresh, one that is not used, and an access token."""
        number = next(self._numbers)
        id_ = f"fam_{number:016}"
        row = {
            "id": id_,
            "client_id": client,
            "user_id": self.callers[user].user_id,
            "scopes": ["model:inference", "usage:read"],
            "created_at": NOW,
            "expires_at": NOW + 365 * DAY + number,
            "address": "192.0.2.7",
            "user_agent": "curl/8",
        }
        with self.database.write() as connection:
            connection.execute(insert(token_families), row | fields)
            if refreshed is not None:
                self._refresh_token(connection, id_, NOW, used_at=refreshed, successor_id="r" * 12)
            if can_refresh:
                self._refresh_token(connection, id_, NOW if refreshed is None else refreshed)
        self.access_token(user, client=client, family=id_)
        return id_

    def access_token(
        self, user: str, *, client: str | None = None, family: str | None = None, ends_at: float = NOW + HOUR
    ) -> str:
        id_ = f"tok{next(self._numbers):09}"
        row = {
            "id": id_,
            "secret_hmac": bytes(32),
            "pepper_version": 1,
            "client_id": client,
            "user_id": self.callers[user].user_id,
            "family_id": family,
            "scopes": ["model:inference"],
            "created_at": NOW,
            "expires_at": ends_at,
        }
        with self.database.write() as connection:
            connection.execute(insert(access_tokens), row)
        return id_

    def _refresh_token(self, connection: Any, family: str, created_at: float, **used: Any) -> None:
        row = {
            "id": f"ref{next(self._numbers):09}",
            "secret_hmac": bytes(32),
            "pepper_version": 1,
            "family_id": family,
            "created_at": created_at,
            "expires_at": created_at + 30 * DAY,
            **used,
        }
        connection.execute(insert(refresh_tokens), row)


@pytest.fixture
def world(database: Database, clients: Clients, admin: Principal, member: Callable[..., Principal]) -> World:
    return World(database, clients, {"admin": admin, "bob": member("bob"), "eve": member("eve")})


@pytest.fixture
def trail() -> KeptDeeds:
    return KeptDeeds()


@pytest.fixture
def http(world: World, changes: Changes, clock: Clock, trail: KeptDeeds) -> TestClient:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(
        live_token_routes(LiveTokens(world.database, on_change=changes, trail=trail, clock=clock))
    )

    async def authenticate(request: Request) -> Principal:
        return world.callers[request.headers["x-caller"]]

    app.state.authenticate = authenticate
    return TestClient(app)


@pytest.fixture
def listed(http: TestClient) -> Callable[..., list[str]]:
    """The ids that a caller sees."""

    def ask(caller: str, **query: Any) -> list[str]:
        answer = http.get("/api/v1/tokens", params=query, headers={"x-caller": caller})
        assert answer.status_code == 200, answer.text
        return [token["id"] for token in answer.json()["data"]]

    return ask


def revoke(http: TestClient, caller: str, id_: str) -> int:
    return http.delete(f"/api/v1/tokens/{id_}", headers={"x-caller": caller}).status_code


def test_sign_in_is_shown_with_what_people_recognise_it_by(http: TestClient, world: World) -> None:
    app = world.client("desktop", grants=["password", "refresh_token"], scopes=["model:inference"])
    family = world.family("bob", client=app, refreshed=NOW + HOUR)

    [shown] = http.get("/api/v1/tokens", headers={"x-caller": "bob"}).json()["data"]

    assert shown == {
        "id": family,
        "kind": "family",
        "client": "desktop",
        "client_id": f"cl-lp-{app}",
        "user": "bob",
        "scopes": ["model:inference"],  # no more than the client may now
        "created_at": "2026-11-18T11:06:40Z",
        "refreshed_at": "2026-11-18T12:06:40Z",
        "expires_at": "2026-12-18T12:06:40Z",
        "address": "192.0.2.7",
        "user_agent": "curl/8",
    }


def test_token_of_a_client_is_shown_without_a_sign_in(http: TestClient, world: World) -> None:
    token = world.access_token("bob", client=world.client("nightly", user="bob"))

    [shown] = http.get("/api/v1/tokens", headers={"x-caller": "bob"}).json()["data"]

    assert (shown["id"], shown["kind"], shown["client"]) == (token, "access_token", "nightly")
    assert (shown["refreshed_at"], shown["address"], shown["user_agent"]) == (None, None, None)
    assert shown["expires_at"] == "2026-11-18T12:06:40Z"


def test_sign_in_without_a_client_that_was_never_refreshed(http: TestClient, world: World) -> None:
    world.family("bob")

    [shown] = http.get("/api/v1/tokens", headers={"x-caller": "bob"}).json()["data"]

    assert (shown["client"], shown["client_id"], shown["refreshed_at"]) == (None, None, None)


def test_sign_in_that_cannot_be_refreshed_is_listed_while_its_access_token_lives(
    http: TestClient, world: World, clock: Clock
) -> None:
    family = world.family("bob", can_refresh=False)

    [shown] = http.get("/api/v1/tokens", headers={"x-caller": "bob"}).json()["data"]
    clock.now = NOW + HOUR

    assert (shown["id"], shown["refreshed_at"], shown["expires_at"]) == (family, None, "2026-11-18T12:06:40Z")
    assert http.get("/api/v1/tokens", headers={"x-caller": "bob"}).json()["data"] == []


def test_access_tokens_of_a_sign_in_are_not_listed_one_by_one(listed: Any, world: World) -> None:
    family = world.family("bob")
    world.access_token("bob", family=family)

    assert listed("bob") == [family]


def test_what_has_ended_is_not_listed(listed: Any, http: TestClient, world: World, clock: Clock) -> None:
    refreshed = world.family("bob", refreshed=NOW + 20 * DAY)
    world.family("bob")  # its refresh token is not used within 30 days
    world.family("bob", revoked_at=NOW, revoked_because="revoked")
    world.family("bob", expires_at=NOW + DAY)
    world.access_token("bob", client=world.client("nightly"))
    assert len(listed("bob")) == 4

    clock.now = NOW + 40 * DAY

    assert listed("bob") == [refreshed]


def test_sign_in_whose_access_token_outlives_its_refresh_token_is_listed(
    listed: Any, world: World, clock: Clock
) -> None:
    family = world.family("bob")
    world.access_token("bob", family=family, ends_at=NOW + 31 * DAY)

    clock.now = NOW + 30.5 * DAY

    assert listed("bob") == [family]


def test_members_see_what_acts_for_them_and_administrators_everything(listed: Any, world: World) -> None:
    shared = world.client("desktop", user="eve", grants=["password"])
    bobs, eves = world.family("bob", client=shared), world.family("eve", client=shared)
    token = world.access_token("eve", client=shared)

    assert listed("bob") == [bobs]
    assert listed("eve") == [eves, token]
    assert listed("admin") == [eves, bobs, token]


def test_filters_narrow_what_is_seen(listed: Any, world: World) -> None:
    desktop, nightly = world.client("desktop", user="eve"), world.client("nightly", user="bob")
    bobs, eves = world.family("bob", client=desktop), world.family("eve", client=desktop)
    token = world.access_token("bob", client=nightly)

    assert listed("admin", user="bob") == [bobs, token]
    assert listed("admin", client="desktop") == listed("admin", client=f"cl-lp-{desktop}") == [eves, bobs]
    assert listed("admin", kind="access_token") == [token]
    assert listed("admin", client="nightly", kind="family") == []
    assert listed("bob", user="bob", client="nightly") == [token]


def test_client_that_has_signed_one_in_can_be_asked_for_whoever_owns_it(listed: Any, world: World) -> None:
    desktop = world.client("desktop", user="eve")
    family = world.family("bob", client=desktop)

    assert listed("bob", client="desktop") == [family]


@pytest.mark.parametrize(
    ("query", "param"), [({"user": "eve"}, "user"), ({"client": "hers"}, "client"), ({"client": "none"}, "client")]
)  # fmt: skip
def test_what_is_anothers_does_not_exist(
    http: TestClient, world: World, query: dict[str, str], param: str
) -> None:
    world.access_token("eve", client=world.client("hers", user="eve"))

    answer = http.get("/api/v1/tokens", params=query, headers={"x-caller": "bob"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (404, param)


def test_pages_of_any_size_hold_everything_once(http: TestClient, world: World) -> None:
    client = world.client("nightly")
    families = [world.family("bob") for _ in range(5)]
    tokens = [world.access_token("bob", client=client) for _ in range(5)]  # all end at once

    for size in (1, 2, 3, 10):
        found: list[str] = []
        query: dict[str, Any] | None = {"limit": size}
        while query is not None:
            page = http.get("/api/v1/tokens", params=query, headers={"x-caller": "bob"}).json()
            found += [token["id"] for token in page["data"]]
            query = {"limit": size, "cursor": page["next_cursor"]} if page["next_cursor"] else None
        assert found == families[::-1] + tokens[::-1]


@pytest.mark.parametrize("cursor", ["x", "WzEuMCwgInRlYW0gYSJd"])
def test_cursor_of_another_list_is_refused(http: TestClient, cursor: str) -> None:
    answer = http.get("/api/v1/tokens", params={"cursor": cursor}, headers={"x-caller": "bob"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


def test_ending_a_sign_in_ends_all_of_its_tokens(
    listed: Any, http: TestClient, world: World, changes: Changes, trail: KeptDeeds
) -> None:
    family, other = world.family("bob"), world.family("bob")
    more = world.access_token("bob", family=family)
    changes.clear()

    assert revoke(http, "bob", family) == 204

    assert listed("bob") == [other]
    assert {(kind, id_) for kind, id_, *_ in changes} >= {("token", more)}
    assert len(changes) == 2, "and the token that it was made with"
    with world.database.read() as connection:
        row = connection.execute(select(token_families).where(token_families.c.id == family)).one()
        left = connection.execute(select(access_tokens).where(access_tokens.c.family_id == family)).all()
    assert (row.revoked_at, left) == (NOW, [])
    [(who, deed)] = trail.deeds
    assert (who, deed.action, deed.target_kind, deed.target_id) == ("bob", "token.revoke", "family", family)


def test_single_access_tokens_can_be_ended_those_of_a_sign_in_as_well(
    listed: Any, http: TestClient, world: World, changes: Changes, trail: KeptDeeds
) -> None:
    token = world.access_token("bob", client=world.client("nightly"))
    family = world.family("bob")
    one = world.access_token("bob", family=family)
    changes.clear()

    assert (revoke(http, "bob", token), revoke(http, "bob", one)) == (204, 204)

    assert listed("bob") == [family]
    assert [(kind, id_) for kind, id_, *_ in changes] == [("token", token), ("token", one)]
    assert [deed.target_kind for _, deed in trail.deeds[-2:]] == ["token", "token"]


def test_administrators_end_everybodys_and_others_their_own_only(http: TestClient, world: World) -> None:
    family, token = world.family("bob"), world.access_token("bob", client=world.client("nightly"))

    assert [revoke(http, "eve", id_) for id_ in (family, token, "fam_none")] == [404, 404, 404]
    assert [revoke(http, "admin", id_) for id_ in (family, token)] == [204, 204]
    assert [revoke(http, "bob", id_) for id_ in (family, token)] == [404, 404]


def test_what_cannot_be_recorded_is_not_done(
    listed: Any, http: TestClient, world: World, trail: KeptDeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = world.family("bob")
    monkeypatch.setattr(trail, "record", lambda *_: 1 / 0)

    assert revoke(http, "bob", family) == 500
    assert listed("bob") == [family]


@pytest.mark.parametrize(("method", "scope"), [("GET", "tokens:read"), ("DELETE", "tokens:write")])
def test_scopes_are_needed(http: TestClient, world: World, method: str, scope: str) -> None:
    world.callers["bob"].scopes = world.callers["bob"].scopes - {scope}
    path = "/api/v1/tokens" if method == "GET" else f"/api/v1/tokens/{world.family('bob')}"

    answer = http.request(method, path, headers={"x-caller": "bob"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert scope in answer.headers["www-authenticate"]


def test_tokens_of_who_is_disabled_are_still_seen(listed: Any, world: World, users: Users) -> None:
    """They work again when the user or client is enabled, so whoever looks must know of them."""
    client = world.client("nightly", user="bob")
    token = world.access_token("bob", client=client)
    world.clients.update(world.callers["admin"], f"cl-lp-{client}", ClientUpdate(disabled=True))
    users.update(world.callers["admin"], "bob", UserUpdate(disabled=True))

    assert listed("admin", user="bob") == [token]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(), "ix_access_tokens_expires_at"),
        (Wanted(user_id="x"), "ix_access_tokens_user_id_expires_at"),
        (Wanted(client_ids=("x",)), "ix_access_tokens_client_id_expires_at"),
    ],
)
def test_page_of_tokens_is_read_from_an_index_in_order(
    database: Database, wanted: Wanted, index: str
) -> None:
    """Among the millions that busy clients have out."""
    seen: list[tuple[str, Any]] = []
    event.listen(database._engine, "before_cursor_execute", lambda *said: seen.append((said[2], said[3])))
    with database.read() as connection:
        after = Place("access_token", NOW, "x")
        SqlLiveTokenStore().page(connection, wanted, after=after, now=NOW, limit=50)
        statement, parameters = seen[-1]
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plan = " ".join(row[3] for row in rows)

    assert f"access_tokens USING INDEX {index} " in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan
