"""Who may not make a request is told so before its body is there."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.web.auth import open_route, require
from lingpai.web.errors import install_error_handlers
from lingpai.web.heads import HeadsFirst

KEYS = {
    "writer": Principal("usr_1", "bob", "member", key_id="k1", scopes=frozenset({"keys:write"})),
    "empty": Principal("usr_1", "bob", "member", key_id="k2"),
}


class Thing(BaseModel):
    name: str


async def authenticate(request: Request) -> Principal:
    key = request.headers.get("authorization", "")
    if key == "broken":
        raise LingpaiError("storage_unavailable", "The key cannot be checked now.")
    if key not in KEYS:
        raise LingpaiError("missing_api_key", "Send a key.")
    return KEYS[key]


def thing_app() -> FastAPI:
    app = FastAPI()
    app.state.authenticate = authenticate
    router = APIRouter()

    @router.post("/keys")
    def create(thing: Thing, caller: Annotated[Principal, require("keys:write")]) -> str:
        return thing.name

    @router.post("/open")
    @open_route("a test")
    def anybody(thing: Thing) -> str:
        return thing.name

    app.include_router(router)
    app.add_middleware(HeadsFirst)
    install_error_handlers(app)
    return app


class Caller:
    """One request, whose body comes only when it is asked for; notes the answer."""

    def __init__(self, path: str = "/keys", *, key: str | None = None, method: str = "POST") -> None:
        headers = [(b"host", b"h"), (b"content-type", b"application/json"), (b"content-length", b"1000000")]
        if key is not None:
            headers.append((b"authorization", key.encode()))
        self.scope: dict[str, Any] = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
            "query_string": b"", "headers": headers, "client": ("192.0.2.7", 1), "server": ("h", 80), "state": {},
        }  # fmt: skip
        self.was_read = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    async def receive(self) -> dict[str, Any]:
        self.was_read = True
        return {"type": "http.request", "body": b'{"name": "x"}', "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])

    def ask(self) -> "Caller":
        asyncio.run(thing_app()(self.scope, self.receive, self.send))
        return self


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("unknown", 401), ("empty", 403)])
def test_who_is_refused_is_refused_unread(key: str | None, status: int) -> None:
    caller = Caller(key=key).ask()

    assert (caller.status, caller.was_read) == (status, False)
    assert caller.headers[b"x-request-id"].startswith(b"req_")


def test_good_key_is_let_in_with_its_body() -> None:
    caller = Caller(key="writer").ask()

    assert (caller.status, caller.was_read) == (200, True)
    assert "is_offence" not in caller.scope["state"]


def test_open_route_reads_what_it_is_sent() -> None:
    assert Caller("/open").ask().status == 200


@pytest.mark.parametrize(("path", "method", "status"), [("/nothing", "POST", 404), ("/keys", "PUT", 405)])
def test_addresses_that_are_none_answer_as_before(path: str, method: str, status: int) -> None:
    caller = Caller(path, method=method).ask()

    assert (caller.status, caller.was_read) == (status, False)


@pytest.mark.parametrize(("key", "is_offence"), [(None, True), ("unknown", True), ("broken", False)])
def test_refused_credential_is_an_offence_and_a_fault_of_ours_is_none(
    key: str | None, is_offence: bool
) -> None:
    caller = Caller(key=key).ask()

    assert caller.scope["state"].get("is_offence", False) is is_offence
