"""What browsers shall do with answers: show none of them as a page, and come back over TLS (OWASP ASVS 5.0, section 3.4)."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""For data. What is meant to be a page sets its own, and that one stands."""


class SecurityHeaders:
    """ASGI middleware that adds `HEADERS` to every answer, and `Strict-Transport-Security` to those over TLS.

    To no others (RFC 6797, section 7.2). The scheme is that of the connection, or the one that a declared proxy speaks
    with the caller.
    """

    def __init__(self, app: ASGIApp, *, strict_transport: str) -> None:
        self._app = app
        self._over_tls = {**HEADERS, "strict-transport-security": strict_transport}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = self._over_tls if scope["scheme"] == "https" else HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
