"""Browsers that were here over TLS shall not come back without it (RFC 6797)."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StrictTransport:
    """ASGI middleware that adds `Strict-Transport-Security` to the answers over TLS, and to no others (section 7.2).

    The scheme is that of the connection, or the one that a declared proxy speaks with the caller.
    """

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["scheme"] != "https":
            await self._app(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["strict-transport-security"] = self._policy
            await send(message)

        await self._app(scope, receive, send_with_policy)
