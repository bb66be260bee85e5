"""Fetching the pictures and sounds that callers name by address, from the public internet only.

A name is resolved once; every address it has must be public; the connection goes to the address that was looked at,
with the name kept for Host and TLS. So a name that answers differently the second time (DNS rebinding) gains nothing.
Redirects are not followed, proxies of the environment not used, sizes and times bounded, and only what is a picture or
a sound comes back: an answer of some inner service in JSON or HTML does not.

What was fetched is memory that the gateway, which counts the bodies of requests, knows nothing of. So it is bounded for
each request, and for all requests of a worker together.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx2

from lingpai.backends.engines.addresses import Address, WebAddress, is_own_address, is_public, read_url
from lingpai.backends.engines.holding import HeldBytes
from lingpai.errors import LingpaiError
from lingpai.wire.media import sniff

Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_BYTES: Final = 32 * 1024 * 1024
"""How much may be fetched for one request."""

MAX_HELD_BYTES: Final = 256 * 1024 * 1024
"""How much of it a worker may hold for all requests that are under way."""

MAX_AT_ONCE: Final = 64
"""How many addresses a worker fetches from at a time; further fetches wait, as long as one may take."""

TIMEOUT_S: Final = 15.0
RETRY_AFTER_S: Final = 5
_MEDIA: Final = ("image/", "audio/", "video/")
_UNTYPED: Final = ("", "application/octet-stream", "binary/octet-stream")


class FetchError(ValueError):
    """What was named cannot be had. The message is for the caller, and tells nothing of what is inside."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at an address."""

    data: bytes = field(repr=False)
    media_type: str


class FetchRoom:
    """What all requests of a worker may fetch and hold together."""

    def __init__(self, *, max_held_bytes: int = MAX_HELD_BYTES, max_at_once: int = MAX_AT_ONCE) -> None:
        self.held_bytes = HeldBytes(max_held_bytes, refusal=_no_room)
        self._places = asyncio.Semaphore(max_at_once)

    @contextlib.asynccontextmanager
    async def place(self, patience_s: float) -> AsyncIterator[None]:
        """A place among those who fetch. Raises LingpaiError when there is none for so long."""
        try:
            async with asyncio.timeout(patience_s):
                await self._places.acquire()
        except TimeoutError:
            raise _no_room() from None
        try:
            yield
        finally:
            self._places.release()


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of `host`. Raises OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches media. `is_allowed` and `is_own` decide about each address; only tests have a reason to change them."""

    is_enabled: bool = True
    resolve: Resolve = resolve
    is_allowed: Callable[[Address], bool] = is_public
    is_own: Callable[[Address], bool] = is_own_address
    max_bytes: int = MAX_BYTES
    timeout_s: float = TIMEOUT_S
    room: FetchRoom = field(default_factory=FetchRoom)

    async def fetch(self, url: str, *, held_bytes: int = 0) -> Fetched:
        """The file at `url`, for a request that has fetched `held_bytes` already.

        Raises FetchError, and LingpaiError `backend_unavailable` when the worker has too much to fetch.
        """
        if not self.is_enabled:
            raise FetchError("this server does not fetch addresses; send the file itself, or a data URL")
        try:
            place = read_url(url)
        except ValueError as error:
            raise FetchError(str(error)) from error
        async with self.room.place(self.timeout_s):
            return await self._fetch(place, held_bytes)

    async def _fetch(self, place: WebAddress, held_bytes: int) -> Fetched:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._get(place, await self._choose(place), held_bytes)
        except TimeoutError as error:
            raise FetchError(f"`{place.host}` did not deliver within {self.timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
            raise FetchError(f"`{place.host}` could not be read from") from error

    async def _choose(self, place: WebAddress) -> Address:
        """The address to connect to: the first, if all are allowed."""
        try:
            found = [ipaddress.ip_address(text) for text in await self.resolve(place.host, place.port)]
        except (OSError, ValueError, UnicodeError):
            found = []
        if not found or not all(self.is_allowed(address) and not self.is_own(address) for address in found):
            # The same words whether the name is unknown or inside: callers must not learn which names there are.
            raise FetchError(
                f"`{place.host}` has no address on the public internet, so it is not fetched from"
            )
        return found[0]

    async def _get(self, place: WebAddress, address: Address, held_bytes: int) -> Fetched:
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"{place.scheme}://{host}:{place.port}{place.target}"
        # `identity`, so that a small answer cannot unfold into a large one.
        headers = {
            "host": place.authority,
            "accept": "image/*, audio/*, video/*",
            "accept-encoding": "identity",
        }
        client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=self.timeout_s)
        async with (
            client,
            client.stream("GET", url, headers=headers, extensions={"sni_hostname": place.host}) as answer,
        ):
            if answer.status_code != 200:
                raise FetchError(f"`{place.host}` answered with status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise FetchError(f"`{place.host}` answered compressed")
            data = await self._read(answer, place, held_bytes)
        return Fetched(data, _media_type(answer, data, place))

    async def _read(self, answer: httpx2.Response, place: WebAddress, size: int) -> bytes:
        data = bytearray()  # no list: parts may be as small as the other side likes
        take = self.room.held_bytes.hold()
        async for part in answer.aiter_raw():
            size += len(part)
            if size > self.max_bytes:
                raise FetchError(
                    f"with what `{place.host}` delivers, the request fetches over {self.max_bytes} bytes"
                )
            take(len(part))
            data += part
        return bytes(data)


def _no_room() -> LingpaiError:
    return LingpaiError(
        "backend_unavailable",
        f"Too many files are being fetched. Try again in {RETRY_AFTER_S} s, or send the files themselves.",
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


def _media_type(answer: httpx2.Response, data: bytes, place: WebAddress) -> str:
    told = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = sniff(data) if told in _UNTYPED else told
    if kind is None or not kind.startswith(_MEDIA):
        raise FetchError(f"`{place.host}` delivered neither a picture nor a sound")
    return kind
