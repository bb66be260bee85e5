"""The OpenAPI document: made once, in a thread, for it takes a tenth of a second; then served as the bytes it is."""

import asyncio
import json

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

PATH = "/openapi.json"


class ApiDocument:
    """The document of `app`, which must have been made without one of its own (``openapi_url=None``)."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: asyncio.Task[bytes] | None = None

    async def serve(self, _: Request) -> Response:
        """The document. Whoever asks first waits until it is made, others meanwhile do not."""
        if self._made is None or self._made.cancelled():
            self._made = asyncio.create_task(asyncio.to_thread(self._make))
        return Response(await asyncio.shield(self._made), media_type="application/json")

    def _make(self) -> bytes:
        return json.dumps(self._app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()


def serve_document(app: FastAPI) -> None:
    """Serve the document of `app` at `PATH`."""
    app.add_route(PATH, ApiDocument(app).serve, include_in_schema=False)
