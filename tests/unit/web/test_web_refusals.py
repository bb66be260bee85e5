"""Refusals by policy are told of, once, with what was asked for; mistakes are not."""

import asyncio
from typing import Annotated

import httpx2
import pytest
from fastapi import FastAPI

from lingpai.errors import CATALOGUE, LingpaiError
from lingpai.principal import Principal
from lingpai.storage.trail import POLICY_CODES
from lingpai.web.auth import require
from lingpai.web.errors import install_error_handlers
from lingpai.web.heads import HeadsFirst
from lingpai.web.schemas import RequestBody

MEMBER = Principal("usr_bob", "bob", "member", key_id="bobs")
ADMIN = Principal("usr_alice", "alice", "admin", key_id="alices")


class Body(RequestBody):
    name: str


def refused(code, *, caller=MEMBER, method="GET", path="/things/a%20b", is_authenticated=True, body=None):
    """What is told when a route refuses with this code."""
    told = []

    async def authenticate(request):
        request.state.caller = caller if is_authenticated else None
        return caller

    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(HeadsFirst)
    app.state.authenticate = authenticate
    app.state.on_refusal = told.append

    @app.get("/things/{id}")
    def show(id: str) -> None:  # noqa: A002
        raise LingpaiError(code, "no")

    @app.post("/things")
    def make(body: Body, caller: Annotated[Principal, require("things:write")]) -> None:
        """Asked for its scope before the body is read."""

    @app.get("/open/{id}")
    def show_caller(id: str, caller: Annotated[Principal, require("*")]) -> None:  # noqa: A002
        raise LingpaiError(code, "no")

    async def ask():
        transport = httpx2.ASGITransport(app, client=("203.0.113.7", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, json=body, headers={"user-agent": "test/1"})

    answer = asyncio.run(ask())
    return told, answer


def test_the_codes_are_in_the_catalogue():
    assert set(CATALOGUE) >= POLICY_CODES


@pytest.mark.parametrize("code", sorted(POLICY_CODES))
def test_each_code_of_policy_is_told_with_who_asked_for_what_from_where(code):
    [told], answer = refused(code, path="/open/a%20b")

    assert (told.caller, told.code) == (MEMBER, code)
    assert (told.target_kind, told.target_id, told.reference) == ("route", "GET /open/{id}", "a b")
    assert (told.address, told.user_agent) == ("203.0.113.7", "test/1")
    assert told.request_id == answer.headers["x-request-id"]


@pytest.mark.parametrize("code", sorted(set(CATALOGUE) - POLICY_CODES))
def test_no_other_code_is(code):
    assert refused(code, path="/open/x")[0] == []


def test_what_an_administrator_does_not_find_is_not_there():
    assert refused("not_found", path="/open/x", caller=ADMIN)[0] == []


def test_what_somebody_unknown_does_not_find_is_not_told():
    assert refused("not_found", path="/open/x", is_authenticated=False)[0] == []


@pytest.mark.parametrize("code", sorted(POLICY_CODES - {"not_found"}))
def test_what_somebody_unknown_is_refused_is_told_with_the_address(code):
    [told], _ = refused(code, path="/open/x", is_authenticated=False)

    assert (told.caller, told.code, told.address) == (None, code, "203.0.113.7")


def test_an_address_that_is_none_is_no_refusal():
    assert refused("not_found", path="/nowhere")[0] == []


def test_a_refusal_before_the_body_is_read_is_told_once_with_its_route():
    [told], answer = refused("unused", method="POST", path="/things", body={"name": "x"})

    assert answer.status_code == 403
    assert (told.code, told.target_id) == ("insufficient_scope", "POST /things")
