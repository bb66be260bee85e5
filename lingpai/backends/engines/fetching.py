"""Fetching the pictures and sounds that callers name by address, from the public internet only.

A name is resolved once; every address it has must be public; the connection goes to the address that was looked at,
with the name kept for Host and TLS. So a name that answers differently the second time (DNS rebinding) gains nothing.
Redirects are not followed, proxies of the environment not used, sizes and times bounded, and only what is a picture or
a sound comes back: an answer of some inner service in JSON or HTML does not.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx2

from lingpai.backends.engines.addresses import Address, WebAddress, is_own_address, is_public, read_url
from lingpai.wire.media import sniff

Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_BYTES: Final = 32 * 1024 * 1024
TIMEOUT_S: Final = 15.0
_MEDIA: Final = ("image/", "audio/", "video/")
_UNTYPED: Final = ("", "application/octet-stream", "binary/octet-stream")


class FetchError(ValueError):
    """What was named cannot be had. The message is for the caller, and tells nothing of what is inside."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at an address."""

    data: bytes = field(repr=False)
    media_type: str


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

    async def fetch(self, url: str) -> Fetched:
        """The file at `url`. Raises FetchError."""
        if not self.is_enabled:
            raise FetchError("this server does not fetch addresses; send the file itself, or a data URL")
        try:
            place = read_url(url)
        except ValueError as error:
            raise FetchError(str(error)) from error
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._get(place, await self._choose(place))
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

    async def _get(self, place: WebAddress, address: Address) -> Fetched:
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
            data = await self._read(answer, place)
        return Fetched(data, _media_type(answer, data, place))

    async def _read(self, answer: httpx2.Response, place: WebAddress) -> bytes:
        parts, size = [], 0
        async for part in answer.aiter_raw():
            size += len(part)
            if size > self.max_bytes:
                raise FetchError(f"what `{place.host}` delivers is over {self.max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


def _media_type(answer: httpx2.Response, data: bytes, place: WebAddress) -> str:
    told = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = sniff(data) if told in _UNTYPED else told
    if kind is None or not kind.startswith(_MEDIA):
        raise FetchError(f"`{place.host}` delivered neither a picture nor a sound")
    return kind
