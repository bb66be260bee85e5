"""The management API of events, as its callers see it."""

import asyncio
from collections.abc import Iterator

import pytest
from event_fakes import NOW
from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.events.routes import event_routes
from lingpai.principal import Principal
from lingpai.storage.trail import NoTrail
from lingpai.web.auth import declared_scope
from lingpai.web.errors import install_error_handlers

CALLERS = {
    "admin": Principal("usr_admin", "admin", "admin", scopes=frozenset({"events:read", "events:write"})),
    "bob": Principal("usr_bob", "bob", "member", scopes=frozenset({"events:read", "events:write"})),
    "blind": Principal("usr_bob", "bob", "member", scopes=frozenset({"model:inference"})),
}


@pytest.fixture
def hook(receiver):
    return receiver()


@pytest.fixture
def post(start, hook):
    post = start(hook)
    post.events.emit("journal.damaged", "Damaged.", data={"segment": 7})
    post.events.emit(
        "limit.threshold", "80 %.", data={"percent": 80}, subject=("key", "k1"), occurred_at=NOW + 1
    )
    asyncio.run(post.events.flush())
    return post


@pytest.fixture
def app(post) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(event_routes(post.events, post.webhooks, lambda: NOW + 100, trail=NoTrail()))

    async def authenticate(request: Request) -> Principal:
        try:
            return CALLERS[request.headers["x-caller"]]
        except KeyError:
            raise LingpaiError("missing_api_key", "Send a key.") from None

    app.state.authenticate = authenticate
    return app


@pytest.fixture
def client(app) -> Iterator[TestClient]:
    with TestClient(app, headers={"x-caller": "admin"}) as client:
        yield client


def messages(answer):
    assert answer.status_code == 200, answer.text
    return [event["message"] for event in answer.json()["data"]]


def test_administrator_sees_all_the_newest_first_with_deliveries(client):
    newest, oldest = client.get("/api/v1/events").json()["data"]

    assert newest == {
        "id": newest["id"], "type": "limit.threshold", "occurred_at": "2026-11-18T11:06:41Z", "message": "80 %.",
        "subject": "key", "subject_id": "k1", "data": {"percent": 80}, "webhooks": newest["webhooks"],
    }  # fmt: skip
    assert (oldest["type"], oldest["subject"]) == ("journal.damaged", None)
    (delivery,) = newest["webhooks"]
    assert (delivery["state"], delivery["attempts"]) == ("waiting", 0)
    assert "part-of-the-address" not in delivery["webhook"]


def test_member_sees_their_own_without_the_operators_webhooks(client):
    data = client.get("/api/v1/events", headers={"x-caller": "bob"}).json()["data"]

    assert [(event["message"], event["webhooks"]) for event in data] == [("80 %.", [])]


def test_filters(client):
    assert messages(client.get("/api/v1/events?type=journal.damaged")) == ["Damaged."]
    assert messages(client.get("/api/v1/events?since=1h")) == ["80 %.", "Damaged."]
    assert messages(client.get("/api/v1/events?since=99s")) == ["80 %."]
    assert messages(client.get("/api/v1/events?since=2026-11-18T11:06:41Z")) == ["80 %."]
    assert messages(client.get("/api/v1/events?since=2026-11-19")) == []
    assert messages(client.get("/api/v1/events?until=99s")) == ["Damaged."]
    assert messages(client.get("/api/v1/events?until=2026-11-18T11:06:41Z")) == ["Damaged."]
    assert messages(client.get("/api/v1/events?since=1h&until=2026-11-19")) == ["80 %.", "Damaged."]


def test_pages_lead_through_all(client):
    first = client.get("/api/v1/events?limit=1").json()
    second = client.get("/api/v1/events", params={"limit": 1, "cursor": first["next_cursor"]}).json()

    assert [event["message"] for event in first["data"] + second["data"]] == ["80 %.", "Damaged."]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("type=limit.treshold", "type"),
        ("since=soon", "since"),
        ("until=soon", "until"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
    ],
)
def test_wrong_query_parameters_are_named(client, query, param):
    answer = client.get(f"/api/v1/events?{query}")

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_key_without_the_scope_sees_nothing(client):
    assert client.get("/api/v1/events", headers={"x-caller": "blind"}).status_code == 403


def test_administrator_tries_the_webhooks_out(client, hook):
    (trial,) = client.post("/api/v1/events/test-webhook").json()["data"]

    assert (trial["ok"], trial["status"], trial["detail"]) == (True, 200, "status 200")
    assert len(hook.received) == 1


def test_member_does_not_even_with_the_scope(client, hook):
    answer = client.post("/api/v1/events/test-webhook", headers={"x-caller": "bob"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert hook.received == []


def test_every_route_declares_a_scope_of_events(app):
    routes = [route for route in iter_route_contexts(app.routes) if str(route.path).startswith("/api/")]

    assert {declared_scope(route) for route in routes} == {"events:read", "events:write"}
