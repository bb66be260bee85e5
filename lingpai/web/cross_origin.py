"""Which addresses pages of other origins may use (Fetch standard, section 3.3; wire.md W6).

Model calls are open to configured origins: a key in a header is no ambient authority that a page could borrow. The
management API and metrics are not.
"""

from collections.abc import Callable, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class CrossOriginCalls:
    """ASGI middleware that answers preflights, and marks answers, for the paths that `is_call` names."""

    def __init__(
        self, app: ASGIApp, *, is_call: Callable[[str], bool], origins: Sequence[str], exposed: str
    ) -> None:
        self._app = app
        self._is_call = is_call
        self._exposed = exposed
        self.allow(origins)

    def allow(self, origins: Sequence[str]) -> None:
        """Open the calls to these origins and no others from now on."""
        self._open = CORSMiddleware(
            self._app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=self._exposed.split(", "),
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        is_call = scope["type"] == "http" and self._is_call(scope["path"])
        await (self._open if is_call else self._app)(scope, receive, send)
