"""Fronts whose caller may be behind a declared proxy. Only used where proxies are declared: others pay nothing for it."""

import asyncio
from typing import Any

from lingpai.lane.forwarded import Caller
from lingpai.lane.front import Front


class ProxiedFront(Front):
    """Asks the head of each request who sent it, if the connection is a declared proxy's.

    A request with a known head needs no look: the same bytes were written by the same caller, and the address of the
    request before, which had that head, still stands.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_proxy = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._is_proxy = not self.is_local and self.peer_address in self.doorman.proxies
        self._own_client, self._own_scheme = self.client, self.scheme

    def on_headers_complete(self) -> None:
        if self._is_proxy and not self._deaf:
            self._identify(self.doorman.proxies.caller(self.peer_address, self.headers))
        super().on_headers_complete()

    def _identify(self, caller: Caller) -> None:
        self.caller_address = caller.address
        # For the application. The caller's port is not ours to know.
        is_passed_on = caller.address != self.peer_address
        self.client = (caller.address, 0) if is_passed_on else self._own_client
        self.scheme = "https" if caller.scheme == "https" else "http" if caller.scheme else self._own_scheme
