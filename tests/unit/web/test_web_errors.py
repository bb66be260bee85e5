"""Every kind of failure has OpenAI's shape, says what to do, and leaks nothing."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.web.errors import ERROR_RESPONSES, install_error_handlers
from lingpai.web.schemas import RequestBody

SECRET = "canary-5512"


class Address(RequestBody):
    city: str


class Thing(RequestBody):
    name: str
    size: Literal["s", "m"] = "s"
    addresses: list[Address] = Field(default_factory=list)


def thing_app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    router = APIRouter(responses=ERROR_RESPONSES)

    @router.post("/things")
    def create(thing: Thing) -> str:
        return thing.name

    @router.get("/things")
    def things(limit: Annotated[int, Query(ge=1)] = 1) -> int:
        return limit

    @router.get("/broken/{name}")
    def broken(name: str) -> None:
        raise RuntimeError(f"password {SECRET}")

    @router.get("/limited")
    def limited() -> None:
        raise LingpaiError("rate_limit_exceeded", "Wait a second.", headers={"retry-after": "1"})

    @router.get("/half")
    async def half() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError(SECRET)

        return StreamingResponse(chunks())

    @router.get("/id")
    async def own_id(request: Request) -> str:
        return str(request.state.request_id)

    app.include_router(router)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(thing_app()) as client:
        yield client


def error_of(answer: Any) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    return dict(body["error"], status=answer.status_code)


def test_our_error_keeps_code_status_and_headers(client: TestClient) -> None:
    answer = client.get("/limited")

    assert error_of(answer) == {
        "status": 429, "code": "rate_limit_exceeded", "type": "rate_limit_error", "param": None, "message": "Wait a second.",
    }  # fmt: skip
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "name", "`name` is missing."),
        ({"name": 7}, "name", "`name`: Input should be a valid string."),
        ({"name": "a", "size": "xl"}, "size", "`size`: Input should be 's' or 'm'."),
        (
            {"name": "a", "addresses": [{"city": "x"}, {}]},
            "addresses.1.city",
            "`addresses.1.city` is missing.",
        ),
        ({"name": "a", "role": "admin"}, "role", "There is no field `role` here."),
    ],
)
def test_validation_error_names_the_field(
    client: TestClient, body: dict[str, Any], param: str, message: str
) -> None:
    error = error_of(client.post("/things", json=body))

    assert (error["status"], error["code"], error["param"]) == (400, "invalid_request", param)
    assert error["message"].startswith(message)


def test_validation_error_of_a_query_parameter_names_it(client: TestClient) -> None:
    error = error_of(client.get("/things?limit=0"))

    assert (error["status"], error["param"]) == (400, "limit")


def test_validation_error_does_not_repeat_what_was_sent(client: TestClient) -> None:
    answer = client.post("/things", json={"name": [SECRET], "size": SECRET})

    assert SECRET not in answer.text


def test_broken_json_says_where_reading_stopped(client: TestClient) -> None:
    error = error_of(
        client.post("/things", content=b'{"name": ', headers={"content-type": "application/json"})
    )

    assert (error["status"], error["code"]) == (400, "invalid_json")
    assert "at character 9" in error["message"]


@pytest.mark.parametrize(
    "body",
    [b'{"name": "\xff"}', b"[" * 200_000, b'{"name": ' + b"9" * 5000 + b"}", b'{"name": "\\ud800"}'],
    ids=["invalid UTF-8", "deep nesting", "huge number", "lone surrogate"],
)
def test_hostile_json_is_a_400(client: TestClient, body: bytes) -> None:
    error = error_of(client.post("/things", content=body, headers={"content-type": "application/json"}))

    assert error["status"] == 400


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1"])
def test_json_that_is_no_object_is_refused_as_such(client: TestClient, body: bytes) -> None:
    error = error_of(client.post("/things", content=body, headers={"content-type": "application/json"}))

    assert (error["status"], error["code"], error["param"]) == (400, "invalid_request", None)
    assert "object" in error["message"]


def test_empty_body_is_refused_as_such(client: TestClient) -> None:
    error = error_of(client.post("/things"))

    assert (error["status"], error["message"]) == (400, "The body is empty. Send a JSON object.")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
def test_other_content_types_are_a_415(client: TestClient, content_type: str) -> None:
    error = error_of(client.post("/things", content=b'{"name": "a"}', headers={"content-type": content_type}))

    assert (error["status"], error["code"]) == (415, "unsupported_media_type")


def test_unknown_address_is_a_404_that_says_where_to_look(client: TestClient) -> None:
    error = error_of(client.get("/nowhere"))

    assert (error["status"], error["code"]) == (404, "not_found")
    assert "/openapi.json" in error["message"]


def test_wrong_method_is_a_405_with_all_methods_of_the_address(client: TestClient) -> None:
    answer = client.delete("/things")

    error = error_of(answer)
    assert (error["status"], error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"


def test_owasp_api8_unexpected_exception_is_a_500_that_leaks_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="lingpai.web"):
        answer = client.get("/broken/x%0Ainjected")

    error = error_of(answer)
    assert (error["status"], error["code"]) == (500, "internal_error")
    assert SECRET not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.headers["x-request-id"] in error["message"]
    (record,) = caplog.records
    assert record.getMessage() == f"request {answer.headers['x-request-id']} failed: GET /broken/{{name}}"
    assert record.exc_info is not None


def test_exception_in_a_started_answer_breaks_the_connection(client: TestClient) -> None:
    with pytest.raises(RuntimeError):
        client.get("/half")


def test_successes_carry_the_request_id_too(client: TestClient) -> None:
    answer = client.get("/id")

    assert answer.json() == answer.headers["x-request-id"] == answer.headers["request-id"]


def test_request_id_set_by_the_server_is_kept() -> None:
    app = thing_app()

    async def front(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"request_id": "req_front"}
        await app(scope, receive, send)

    assert TestClient(front).get("/id").json() == "req_front"


def test_openapi_documents_our_shape_and_no_422() -> None:
    responses = thing_app().openapi()["paths"]["/things"]["post"]["responses"]

    assert set(responses) == {"200", "4XX"}
    assert responses["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
