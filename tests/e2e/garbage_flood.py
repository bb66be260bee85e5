"""Floods a server with well-formed keys that are none: `python -m tests.e2e.garbage_flood PORT SECONDS WAY`.

WAY is

- `kept`: 64 connections, the next key after each answer
- `piled`: hundreds of keys in one go, on connections that are opened again once the server has answered or given up
- `poured`: the same without waiting for anything, so many keys a second as the kernel takes

Prints how many keys were sent, how many answers came, and how many seconds it took. No key is sent twice.
"""

import os
import selectors
import socket
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

from lingpai.ids import ALPHABET
from tests.e2e.raw_http import get_bytes, post_bytes

CONNECTIONS = 64
PILE = 300

_PLACE = b"K" * 67
_CALL = post_bytes("/v1/embeddings", b'{"input": "x"}', key=_PLACE.decode()).split(_PLACE)
_QUESTION = get_bytes("/v1/key", key=_PLACE.decode()).split(_PLACE)
_TO_BASE62 = (ALPHABET * 5).encode()[:256]


def garbage_key() -> bytes:
    """Well formed, with a right checksum, like `lingpai.ids.mint_credential` but made in 2 µs instead of 100."""
    body = b"sk-lp-" + os.urandom(55).translate(_TO_BASE62)
    value, digits = zlib.crc32(body), []
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return body + "".join(reversed(digits)).encode()


def requests(count: int) -> bytes:
    """Model calls, and a few questions that the application answers."""
    return b"".join(garbage_key().join(_QUESTION if number % 4 == 3 else _CALL) for number in range(count))


def keep(port: int, until: float) -> tuple[int, int]:
    """One key after the other on each of some connections, which are opened again when the server closes them."""
    sent = answered = 0
    with selectors.DefaultSelector() as selector:
        while time.monotonic() < until:
            while len(selector.get_map()) < CONNECTIONS:
                connection = socket.create_connection(("127.0.0.1", port))
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(requests(1))
                sent += 1
            for event, _ in selector.select(0.1):
                connection = event.fileobj  # type: ignore[assignment]  # what was registered above
                try:
                    answer = connection.recv(65536)
                    connection.sendall(requests(1))
                except OSError:
                    answer = b""
                answered += answer.count(b"HTTP/1.1 401")
                sent += bool(answer)
                if not answer:
                    selector.unregister(connection)
                    connection.close()
    return sent, answered


def pile(port: int, until: float) -> tuple[int, int]:
    """Many keys at once, as often as the server lets us in."""
    sent = answered = 0
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(requests(PILE))
            sent += PILE
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answered += data.count(b"HTTP/1.1 401")
    return sent, answered


def pour(port: int, until: float) -> tuple[int, int]:
    """Many keys at once and away again."""
    sent = 0
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(requests(PILE))
            sent += PILE
    return sent, 0


WAYS: dict[str, Callable[[int, float], tuple[int, int]]] = {"kept": keep, "piled": pile, "poured": pour}

if __name__ == "__main__":
    os.nice(19)
    port, seconds, way = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    began = time.monotonic()
    print(*WAYS[way](port, began + seconds), f"{time.monotonic() - began:.1f}")
