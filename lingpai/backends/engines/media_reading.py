"""Reading a request that names pictures, sound and files, without holding up the worker's other requests.

What takes long is put off: a first look at the request notes which addresses have to be fetched and what has to be
decoded; when that is done, outside of the event loop, the request is read again and everything is there.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from lingpai.backends.engines.fetching import Fetched, Fetcher, FetchError
from lingpai.backends.engines.holding import HeldBytes
from lingpai.backends.engines.media_values import Hook, MediaReader, address_of, is_array, is_file
from lingpai.errors import LingpaiError
from lingpai.media import File

Read = TypeVar("Read")

MOST_ADDRESSES: Final = 16
"""How many addresses one request may have fetched."""

MOST_PIXELS: Final = 100_000_000
"""How many pixels the pictures that are decoded for one request may have together."""

MAX_DECODED_BYTES: Final = 10**9
"""How much of what was decoded a worker may hold for all requests that are under way, those that queue included. What
its two threads are decoding comes on top.
"""

RETRY_AFTER_S: Final = 5

_DECODERS: Final = ThreadPoolExecutor(2, thread_name_prefix="decode")
"""Few, because a picture is much larger decoded than it was in the request."""


def _no_room() -> LingpaiError:
    return LingpaiError(
        "backend_unavailable",
        f"Too many pictures and sounds are being worked on. Try again in {RETRY_AFTER_S} s, or send smaller ones.",
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


_ROOM: Final = HeldBytes(MAX_DECODED_BYTES, refusal=_no_room)


async def reading(
    fetcher: Fetcher,
    read: Callable[[Hook], Read],
    *,
    field: str,
    array_of: type[File] = File,
    room: HeldBytes = _ROOM,
) -> Read:
    """What `read` makes of a request, given a hook. It is called again when what it came upon has been brought.

    `array_of` says which files may become arrays. Raises LingpaiError when an address cannot be had, or when there
    are too many addresses or pixels, in this request or in all of the worker.
    """
    reader = _PatientReader(array_of)
    while True:
        result = read(reader)
        if not reader.missing and not reader.undone:
            return result
        await _fetch(reader, fetcher, field)
        await _decode(reader, field, room)


@dataclass(slots=True)
class _PatientReader(MediaReader):
    """Notes what takes long, and gives something of the right kind in its place until it is done."""

    fetched: dict[str, Fetched] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    """Addresses to be fetched, in order."""
    made: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    """The value that came and what was made of it, or the ValueError. Holding the value keeps its id its own."""
    undone: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    """The kind and the value of what is to be decoded."""

    def make(self, kind: Any, value: Any) -> Any:
        key = (kind, id(value))
        if key in self.made:
            made = self.made[key][1]
            if isinstance(made, ValueError):
                raise made
            return made
        url = address_of(value)
        if url is not None and url not in self.fetched:
            self.missing[url] = None
            return _stand_in(kind)
        if not is_file(kind):
            self.undone[key] = (kind, value)
            return _stand_in(kind)
        made = MediaReader.make(self, kind, value)
        self.made[key] = (value, made)
        return made

    def at_address(self, url: str) -> File:
        found = self.fetched[url]
        return File(found.data, media_type=found.media_type)


async def _fetch(reader: _PatientReader, fetcher: Fetcher, field: str) -> None:
    if len(reader.fetched) + len(reader.missing) > MOST_ADDRESSES:
        message = f"`{field}` has more than {MOST_ADDRESSES} addresses to fetch. Send data URLs instead."
        raise LingpaiError("invalid_request", message, field)
    for url in reader.missing:
        held = sum(len(found.data) for found in reader.fetched.values())
        try:
            reader.fetched[url] = await fetcher.fetch(url, held_bytes=held)
        except FetchError as error:
            raise LingpaiError("invalid_request", f"`{field}`: {error}.", field) from error
    reader.missing.clear()


async def _decode(reader: _PatientReader, field: str, room: HeldBytes) -> None:
    loop = asyncio.get_running_loop()
    take = room.hold()
    pixels = sum(_pixels(made) for _, made in reader.made.values())
    for key, (kind, value) in reader.undone.items():
        made: Any
        try:
            made = await loop.run_in_executor(_DECODERS, _made, reader, kind, value, take)
        except ValueError as error:
            made = error  # told when the request is read again: then the place is known
        reader.made[key] = (value, made)
        pixels += _pixels(made)
        if pixels > MOST_PIXELS:
            most = f"{MOST_PIXELS // 10**6} megapixels"
            message = (
                f"`{field}` has pictures of over {most} together. Send fewer at a time, or smaller ones."
            )
            raise LingpaiError("invalid_request", message, field)
    reader.undone.clear()


def _made(reader: _PatientReader, kind: Any, value: Any, take: Callable[[int], None]) -> Any:
    """What is made of a value, taken account of before this thread makes the next."""
    made = MediaReader.make(reader, kind, value)
    take(_bytes(made))
    return made


def _stand_in(kind: Any) -> Any:
    if is_file(kind):
        return kind(b"")
    return kind((0,)) if is_array(kind) else kind()


def _pixels(made: Any) -> int:
    """Of what was decoded; of a sound its samples, which are fewer than matter."""
    if isinstance(made, File | ValueError):
        return 0
    return math.prod(made.shape[:2]) if is_array(type(made)) else made.width * made.height


def _bytes(made: Any) -> int:
    if isinstance(made, File):
        return 0
    if is_array(type(made)):
        return int(made.nbytes)
    # As Pillow holds it: three channels take four bytes, too.
    per_pixel = 1 if made.mode in ("1", "L", "P") else 2 if made.mode.startswith("I;16") else 4
    return int(made.width * made.height * per_pixel)
