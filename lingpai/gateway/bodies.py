"""How much memory the bodies of model calls may take: all together, and those of one key.

A request is held from its announcement until its call is over: while it comes, while it waits for a limit, and while the
backend is at work, for what was used may have to be counted in it. An answer that is no stream is held as it grows.
Small bodies are not counted: the number of connections bounds those. What is counted is what is sent; a call may need up
to three times as much for a moment, while its request to the backend, or its answer, is written.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from lingpai.errors import LingpaiError
from lingpai.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

UNCOUNTED_BYTES: Final = 10_000
"""Bodies up to this size are small: one less digit in Content-Length says so."""


class HeldBody:
    """The share of one call. It goes back to the budget when the call is forgotten, and its body with it."""

    __slots__ = ("_returned", "key", "size")

    def __init__(self, returned: deque[tuple[str, int]], key: str, size: int) -> None:
        self._returned = returned
        self.key = key
        self.size = size

    def __del__(self) -> None:
        # Whichever thread collects garbage may be here, so this is a note and no more.
        self._returned.append((self.key, self.size))


class BodyBudget:
    """Counts what is held. Belongs to the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._returned: deque[tuple[str, int]] = deque()
        self._held = 0
        self._by_key: dict[str, int] = {}
        self.small = 0
        self.reconfigure(settings)

    def reconfigure(self, settings: GatewaySettings) -> None:
        """Other bounds from now on."""
        self.small = min(UNCOUNTED_BYTES, settings.max_body_bytes)
        """Bodies up to this size need neither be counted nor measured."""
        self._most, self._most_per_key = settings.max_held_bytes, settings.max_held_bytes_per_key

    @property
    def held(self) -> int:
        """Bytes held by all calls together."""
        self._take_back()
        return self._held

    def hold(self, key: str, size: int) -> HeldBody:
        """Count `size` bytes for a call of `key`. Raises LingpaiError `server_busy` when there is no room for them.

        One body is always held, however low the bounds: else no call of its size could ever be made.
        """
        self._take_back()
        own = self._by_key.get(key, 0)
        if own and own + size > self._most_per_key:
            raise _busy(
                f"The calls of this key that are under way have {own} bytes of requests and answers, and this one would"
                " be too much (`gateway.max_held_bytes_per_key`)."
            )
        if self._held and self._held + size > self._most:
            raise _busy(
                "The server holds as many bytes of requests and answers as it may (`gateway.max_held_bytes`)."
            )
        self._held += size
        self._by_key[key] = own + size
        return HeldBody(self._returned, key, size)

    def _take_back(self) -> None:
        while self._returned:
            key, size = self._returned.popleft()
            self._held -= size
            left = self._by_key[key] - size
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]


def key_of(exchange: "Exchange") -> str:
    """Whose share, or turn, it is: a key's, a client's, or of callers without either their user's.

    Those whose key is still being looked up have one together.
    """
    caller = exchange.principal
    return "" if caller is None else caller.key_id or caller.client_id or caller.user_id


def _busy(message: str) -> LingpaiError:
    return LingpaiError("server_busy", f"{message} Try again shortly.", headers={"retry-after": "1"})
