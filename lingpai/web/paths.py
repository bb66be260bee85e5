"""Addresses as people paste them: without `/v1`, with it twice, with a trailing slash, after a whole endpoint.

Served as meant, no redirect.
"""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES: Final = re.compile(r"/{2,}")
_DOUBLED: Final = re.compile(r"(?:/v1)+(?=/v1/)")
# A client that was given the address of an endpoint as its base URL adds another one to it. `models` is never such a
# base: what comes after it is the id of a model, which may well be called `acme/chat/completions`.
_CALL = (
    "/(?:chat/completions|completions|embeddings|rerank|audio/transcriptions|audio/speech|images/generations)"
)
_PASTED_BASE: Final = re.compile(
    rf"(?:(?:/v1)*{_CALL})+(?=(?:/v1)*(?:{_CALL}|/key|/models(?:/.*)?)\Z)", re.DOTALL
)
_BARE: Final = re.compile(r"/(models(/.*)?|key)")


def usual_path(path: str) -> str:
    """The path that is meant by `path`. The lane and the ASGI side both ask here, so it means the same to both."""
    usual = _SLASHES.sub("/", path)
    if usual != "/":
        usual = usual.rstrip("/")
    pasted = _PASTED_BASE.match(usual)
    if pasted:
        usual = f"/v1{usual[pasted.end() :]}"
    doubled = _DOUBLED.match(usual)
    if doubled:
        usual = usual[doubled.end() :]
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
