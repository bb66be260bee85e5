"""The OpenAPI document is made once, and not on the event loop."""

import asyncio
import threading

from fastapi import FastAPI
from starlette.testclient import TestClient

from lingpai.web.document import ApiDocument, serve_document


def test_document_is_served_as_the_application_describes_itself() -> None:
    app = FastAPI(title="Things", openapi_url=None)
    app.add_api_route("/things", lambda: 1)
    serve_document(app)

    with TestClient(app) as client:
        answer = client.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == app.openapi()
    assert list(answer.json()["paths"]) == ["/things"]


def test_document_is_made_once_and_in_a_thread() -> None:
    app = FastAPI(openapi_url=None)
    document, made_in = ApiDocument(app), list[int]()
    make = app.openapi

    def note() -> dict[str, object]:
        made_in.append(threading.get_ident())
        return make()

    app.openapi = note  # type: ignore[method-assign]

    async def ask() -> None:
        await asyncio.gather(*(document.serve(None) for _ in range(5)))  # type: ignore[arg-type]  # not looked at

    asyncio.run(ask())

    assert len(made_in) == 1
    assert made_in[0] != threading.get_ident()
