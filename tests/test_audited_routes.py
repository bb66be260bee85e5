"""Nothing changes over the management API without a record: every route that is not a GET is driven, and looked after.

A new route fails `test_every_route_that_can_change_something_is_driven` until it has a call here; the others say whether
what it did was recorded, and whether it was refused, and nothing done, when that could not be recorded.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from lingpai.api import build_api
from lingpai.events.settings import EventsSettings
from lingpai.identity.member_schemas import MemberCreate
from lingpai.identity.oauth.schemas import ClientCreate
from lingpai.identity.schemas import KeyCreate, ProjectCreate, UserCreate
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.settings import ModelSettings, ServerSettings, Settings
from tests.fakes.openai_engine import FakeEngine
from tests.in_process import InProcessServer

READING = {"GET", "HEAD", "OPTIONS"}
# Tables that change for other reasons than administration, and columns that do.
NOT_LOOKED_AT = ("audit_", "usage_", "events", "webhook_deliveries", "sqlite_", "alembic_")
IGNORED_COLUMNS = {"last_used_at", "last_used_ip"}

Call = tuple[str, str, str, Any, str]
"""Method, pattern of the route, address, body, and the action of the record."""

LIMITS = "/api/v1/limits"
SIGNING = "/api/v1/keys/{id}/signing-keys"
CLIENT_SIGNING = "/api/v1/clients/{id}/signing-keys"
MEMBERS = "/api/v1/projects/{id}/members"
CALLS: list[Call] = [
    ("POST", "/api/v1/keys", "/api/v1/keys", {"name": "new"}, "key.create"),
    ("PATCH", "/api/v1/keys/{id}", "/api/v1/keys/ready", {"name": "renamed"}, "key.update"),
    ("PATCH", "/api/v1/keys/{id}", "/api/v1/keys/other", {"disabled": True}, "key.disable"),
    ("PATCH", "/api/v1/keys/{id}", "/api/v1/keys/disabled", {"disabled": False}, "key.enable"),
    ("DELETE", "/api/v1/keys/{id}", "/api/v1/keys/unwanted", None, "key.delete"),
    ("POST", "/api/v1/users", "/api/v1/users", {"name": "new"}, "user.create"),
    ("PATCH", "/api/v1/users/{id}", "/api/v1/users/ready", {"role": "admin"}, "user.update"),
    ("PATCH", "/api/v1/users/{id}", "/api/v1/users/other", {"disabled": True}, "user.disable"),
    ("POST", "/api/v1/projects", "/api/v1/projects", {"name": "new team"}, "project.create"),
    ("PATCH", "/api/v1/projects/{id}", "/api/v1/projects/team", {"name": "crew"}, "project.update"),
    ("DELETE", "/api/v1/projects/{id}", "/api/v1/projects/no-team", None, "project.delete"),
    ("POST", "/api/v1/keys/{id}/rotate", "/api/v1/keys/limited/rotate", {"overlap": "1h"}, "key.rotate"),
    ("POST", SIGNING, "/api/v1/keys/limited/signing-keys", {"name": "one", "algorithm": "hmac-sha256"}, "signing_key.create"),
    ("DELETE", f"{SIGNING}/{{signing_key}}", "/api/v1/keys/limited/signing-keys/{signing}", None, "signing_key.delete"),
    ("POST", CLIENT_SIGNING, "/api/v1/clients/{client}/signing-keys", {"name": "one", "algorithm": "hmac-sha256"}, "signing_key.create"),
    ("DELETE", f"{CLIENT_SIGNING}/{{signing_key}}", "/api/v1/clients/{client}/signing-keys/{client_signing}", None, "signing_key.delete"),
    ("POST", MEMBERS, "/api/v1/projects/crowd/members", {"user": "other"}, "member.add"),
    ("PATCH", f"{MEMBERS}/{{user}}", "/api/v1/projects/crowd/members/limited", {"role": "viewer"}, "member.update"),
    ("DELETE", f"{MEMBERS}/{{user}}", "/api/v1/projects/crowd/members/limited", None, "member.remove"),
    ("POST", "/api/v1/clients", "/api/v1/clients", {"name": "new"}, "client.create"),
    ("PATCH", "/api/v1/clients/{id}", "/api/v1/clients/{client}", {"name": "renamed"}, "client.update"),
    ("PATCH", "/api/v1/clients/{id}", "/api/v1/clients/{client}", {"disabled": True}, "client.disable"),
    ("PATCH", "/api/v1/clients/{id}", "/api/v1/clients/{client}", {"disabled": False}, "client.enable"),
    ("POST", "/api/v1/clients/{id}/rotate", "/api/v1/clients/{client}/rotate", {}, "client.rotate"),
    ("DELETE", "/api/v1/tokens/{id}", "/api/v1/tokens/{token}", None, "token.revoke"),
    ("DELETE", "/api/v1/clients/{id}", "/api/v1/clients/{client}", None, "client.delete"),
    ("POST", "/api/v1/users/{id}/invitation", "/api/v1/users/limited/invitation", None, "invitation.create"),
    ("DELETE", "/api/v1/users/{id}/invitation", "/api/v1/users/invited/invitation", None, "invitation.delete"),
    ("DELETE", "/api/v1/sessions/{id}", "/api/v1/sessions/{session}", None, "session.end"),
    ("DELETE", "/api/v1/sessions", "/api/v1/sessions?user=signed-in", None, "session.end"),
    ("DELETE", "/api/v1/users/{id}", "/api/v1/users/unwanted", None, "user.delete"),
    ("PUT", LIMITS, LIMITS, {"subject": "key", "id": "limited", "limits": ["7/day"]}, "key.update"),
    ("PUT", LIMITS, LIMITS, {"subject": "user", "id": "limited", "limits": ["7/day"]}, "user.update"),
    ("PUT", LIMITS, LIMITS, {"subject": "project", "id": "limits", "limits": ["7/day"]}, "project.update"),
    ("PUT", LIMITS, LIMITS, {"subject": "model", "id": "fake/chat", "limits": ["7/day"]}, "limits.set"),
    ("PUT", LIMITS, LIMITS, {"subject": "user_model", "user": "*", "model": "fake/chat", "limits": None}, "limits.reset"),
    ("POST", "/api/v1/models", "/api/v1/models", {"target": "{second}"}, "target.add"),
    ("POST", "/api/v1/models/check", "/api/v1/models/check", {"model": "fake/chat"}, "model.check"),
    ("DELETE", "/api/v1/models/{id:path}", "/api/v1/models/fake/chat", None, "target.remove"),
    ("POST", "/api/v1/events/test-webhook", "/api/v1/events/test-webhook", None, "webhooks.test"),
]  # fmt: skip

# What another credential than an administrator's key does, and where its record is looked after.
IDENTITY = "unit/identity/test_identity_"
ELSEWHERE = {
    ("POST", "/oauth/token"): (IDENTITY + "oauth_server", "test_every_token_that_is_given_out_is_recorded"),
    ("POST", "/api/v1/token"): (IDENTITY + "oauth_server", "test_every_token_that_is_given_out_is_recorded"),
    ("POST", "/oauth/revoke"): (IDENTITY + "oauth_server", "test_what_cannot_be_recorded_does_not_happen"),
    ("POST", "/oauth/introspect"): None,  # it changes nothing
    ("POST", "/api/v1/signatures/explain"): None,  # it changes nothing
    ("POST", "/api/v1/sessions"): (IDENTITY + "sessions", "test_every_begin_and_end_is_recorded"),
    ("DELETE", "/api/v1/sessions/current"): (IDENTITY + "sessions", "test_every_begin_and_end_is_recorded"),
    ("PUT", "/api/v1/users/{id}/password"): (IDENTITY + "password_changes", "test_change_is_recorded"),
    ("POST", "/api/v1/invitations/accept"): (IDENTITY + "invitations", "test_everything_is_recorded"),
    ("POST", "/api/v1/invitations/look-up"): None,  # it changes nothing
    ("POST", "/api/v1/keys/leaked"): (IDENTITY + "leaks", "test_key_is_disabled_and_everybody_who_must_know"),
    ("PUT", "/api/v1/targets/key"): ("unit/catalog/test_catalog_store", "test_every_change_is_recorded"),
    ("POST", "/api/v1/secrets/{kind}/rotate"): (
        "unit/secrets/test_secrets_routes",
        "test_rotating_makes_a_version_and_is_recorded",
    ),
    ("DELETE", "/api/v1/secrets/{kind}/{version}"): (
        "unit/secrets/test_secrets_routes",
        "test_retiring_takes_a_version_away_and_is_rec",
    ),
}


class World:
    """A server with things to change, and the key of an administrator."""

    def __init__(self, server: InProcessServer, second: str) -> None:
        self.application = server.application
        self.base = f"http://127.0.0.1:{server.port}"
        self.second = second
        self.names: dict[str, str] = {}  # what stands for ids that are only known once things are made
        self.client = httpx2.AsyncClient(base_url=self.base, trust_env=False, timeout=30)

    async def prepare(self, first: str) -> None:
        await asyncio.to_thread(
            self._make_things
        )  # which tell the event loop of each change, and wait for it
        await self.call("PATCH", "/api/v1/keys/disabled", {"disabled": True})
        await self.call("POST", "/api/v1/models", {"target": first})
        body = {"subject": "user_model", "user": "*", "model": "fake/chat", "limits": ["9/day"]}
        await self.call("PUT", LIMITS, body)

    def _make_things(self) -> None:
        domains, admin = self.application.domains, self.application.local_administrator
        root = KeyCreate(name="root", scopes=sorted(ALL_SCOPES), limits=["none"])
        self.client.headers["authorization"] = f"Bearer {domains.keys.create(admin, root).token}"
        for name in ("ready", "other", "disabled", "unwanted", "limited"):
            domains.keys.create(admin, KeyCreate(name=name))
        for name in ("ready", "other", "limited", "unwanted", "invited", "signed-in"):
            domains.users.create(admin, UserCreate(name=name))
        for name in ("team", "limits", "no-team", "crowd"):
            domains.projects.create(admin, ProjectCreate(name=name))
        domains.members.add(admin, "crowd", MemberCreate(user="limited"))
        domains.people.invitations.make(admin, "invited")
        user = domains.users.get(admin, "signed-in")
        for agent in ("a phone", "a desk"):
            session = domains.people.sessions.sign_in(user, address="127.0.0.1", user_agent=agent).session
        client = domains.clients.create(admin, ClientCreate(name="ready"))
        credentials = {"client_id": client.client.client_id, "client_secret": client.secret}
        form = {"grant_type": "client_credentials", **credentials}
        token = httpx2.post(f"{self.base}/oauth/token", data=form, trust_env=False).json()
        signs = SigningKeyCreate(name="present", algorithm="hmac-sha256")
        self.names = {
            "{signing}": domains.signing_keys.create(admin, "limited", signs).key.id,
            "{client_signing}": domains.client_signing_keys.create(admin, "ready", signs).key.id,
            "{client}": client.client.client_id,
            "{session}": session.id,
            "{token}": token["access_token"][6:18],
        }

    async def call(self, method: str, url: str, body: Any) -> httpx2.Response:
        text = None if body is None else json.dumps(body).replace("{second}", self.second)
        for name, value in self.names.items():
            url = url.replace(name, value)
        headers = {"content-type": "application/json"} if text else {}
        return await self.client.request(method, url, content=text, headers=headers)

    def state(self) -> dict[str, list[Any]]:
        """What administration is about: the rows of the database, and the models that are served."""
        found: dict[str, list[Any]] = {
            "models": sorted(model.id for model in self.application.catalog.models())
        }
        found["served"] = sorted(served.settings.target for served in self.application.fleet.served())
        with self.application.domains.database.read() as connection:
            tables = (
                connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
                .scalars()
                .all()
            )
            for table in tables:
                if table.startswith(NOT_LOOKED_AT):
                    continue
                rows = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
                found[table] = [
                    {name: value for name, value in row.items() if name not in IGNORED_COLUMNS}
                    for row in rows
                ]
        return found

    def records(self) -> list[dict[str, Any]]:
        with self.application.domains.database.read() as connection:
            lines = connection.exec_driver_sql("SELECT line FROM audit_records ORDER BY number").scalars()
            return [json.loads(line) for line in lines]

    def let_nothing_be_recorded(self) -> None:
        with self.application.domains.database.write() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )

    def changing_routes(self) -> set[tuple[str, str]]:
        """Those that are neither for reading nor model calls, which the gateway answers and records as usage."""
        routes = iter_route_contexts(build_api(self.application).routes)
        claims = self.application.gateway.claims
        return {
            (method, route.path)
            for route in routes
            for method in set(route.methods or ()) - READING
            if not claims(route.path.replace("{id:path}", "a/b").encode())
        }


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[World]:
    first, second = FakeEngine().start(), FakeEngine().start()
    settings = Settings(server=ServerSettings(port=0), events=EventsSettings())
    server = InProcessServer(folder, settings, (ModelSettings(target="lingpai.demo"),))
    await server.start()
    world = World(server, second.url)
    try:
        await world.prepare(first.url)
        yield world
    finally:
        await world.client.aclose()
        await server.stop()
        first.stop()
        second.stop()


def test_every_route_that_can_change_something_is_driven(tmp_path: Path) -> None:
    async def story() -> set[tuple[str, str]]:
        async with running(tmp_path) as world:
            return world.changing_routes()

    assert asyncio.run(story()) == {(method, pattern) for method, pattern, *_ in CALLS} | set(ELSEWHERE)


@pytest.mark.parametrize("place", sorted({place for place in ELSEWHERE.values() if place}))
def test_what_is_looked_after_elsewhere_is(place: tuple[str, str]) -> None:
    file, test = place

    assert f"def {test}" in (Path(__file__).parent / f"{file}.py").read_text()


def test_nothing_changes_without_a_record_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            for method, _, url, body, action in CALLS:
                await check(world, method, url, body, action)

    async def check(world: World, method: str, url: str, body: Any, action: str) -> None:
        before, count = world.state(), len(world.records())

        answer = await world.call(method, url, body)

        new = [record for record in world.records()[count:] if record["action"] == action]
        assert answer.is_success, (method, url, answer.text)
        assert len(new) == 1, (method, url, world.records()[count:])
        assert new[0]["request_id"] == answer.headers["x-request-id"]
        assert new[0]["actor"]["name"] == "admin"
        assert new[0]["actor"]["credential"]["kind"] == "key"
        assert (new[0]["address"], new[0]["result"]) == ("127.0.0.1", "done")
        is_about_rows = action not in {"model.check", "webhooks.test"}
        assert (world.state() != before) == is_about_rows, (method, url)

    asyncio.run(story())


def test_what_cannot_be_recorded_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.let_nothing_be_recorded()
            before, records = world.state(), world.records()
            for method, _, url, body, _ in CALLS:
                answer = await world.call(method, url, body)
                assert answer.status_code == 503, (method, url, answer.text)
                assert answer.json()["error"]["code"] == "storage_unavailable"
                assert answer.headers["retry-after"] == "5"
                assert world.state() == before, (method, url)
            assert world.records() == records

    asyncio.run(story())


def test_a_target_that_cannot_be_served_is_recorded_as_removed_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            before = world.state()

            answer = await world.call("POST", "/api/v1/models", {"target": "http://127.0.0.1:1/v1"})

            assert answer.status_code == 400
            assert world.state() == before
            added, removed = world.records()[-2:]
            assert (added["action"], removed["action"]) == ("target.add", "target.remove")
            assert removed["reason"].startswith("it cannot be served: ")

    asyncio.run(story())


def test_no_record_holds_a_key_that_was_made(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            made = (await world.call("POST", "/api/v1/keys", {"name": "secret"})).json()

            text = json.dumps(world.records(), ensure_ascii=False)

            assert made["hint"] in text
            assert made["key"] not in text
            assert made["key"][18:40] not in text

    asyncio.run(story())
