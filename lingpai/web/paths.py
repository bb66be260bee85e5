"""Addresses as people paste them: without `/v1`, with it twice, with a trailing slash. Served as meant, no redirect."""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES: Final = re.compile(r"/{2,}")
_BARE: Final = re.compile(r"/(models(/.*)?|key)")


def usual_path(path: str) -> str:
    """The path that is meant by `path`."""
    usual = _SLASHES.sub("/", path)
    if usual != "/":
        usual = usual.rstrip("/")
    while usual.startswith("/v1/v1/"):
        usual = usual.removeprefix("/v1")
    return f"/v1{usual}" if _BARE.fullmatch(usual) else usual


class UsualPaths:
    """ASGI middleware that serves pasted addresses as they were meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            scope = {**scope, "path": usual_path(scope["path"])}
        await self._app(scope, receive, send)
