"""Floods a server with well-formed keys that are none: `python -m tests.e2e.garbage_flood PORT SECONDS WAY`.

WAY is `kept` (64 connections, the next key after each answer) or `piled` (hundreds of keys in one go on connections that
are opened again and again). Prints how many keys were sent and how many answers came. Niced: the server shall not be
slow because the attacker takes its processor.
"""

import os
import selectors
import socket
import sys
import time
from contextlib import suppress
from itertools import cycle

from lingpai.ids import mint_credential
from tests.e2e.raw_http import get_bytes, post_bytes

CONNECTIONS = 64
PILE = 300


def _requests(count: int) -> list[bytes]:
    """Model calls, and in between questions that the application answers."""
    keys = [mint_credential("sk-lp-").token for _ in range(count)]
    return [
        get_bytes("/v1/key", key=key)
        if number % 4 == 3
        else post_bytes("/v1/embeddings", b'{"input": "x"}', key=key)
        for number, key in enumerate(keys)
    ]


def keep(port: int, until: float) -> tuple[int, int]:
    """One key after the other on each of some connections, which are opened again when the server closes them."""
    requests, sent, answered = cycle(_requests(2000)), 0, 0
    with selectors.DefaultSelector() as selector:
        while time.monotonic() < until:
            while len(selector.get_map()) < CONNECTIONS:
                connection = socket.create_connection(("127.0.0.1", port))
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(next(requests))
                sent += 1
            for event, _ in selector.select(0.1):
                connection = event.fileobj  # type: ignore[assignment]  # what was registered above
                try:
                    answer = connection.recv(65536)
                    connection.sendall(next(requests))
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
    requests, sent, answered = b"".join(_requests(PILE)), 0, 0
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(requests)
            sent += PILE
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answered += data.count(b"HTTP/1.1 401")
    return sent, answered


if __name__ == "__main__":
    os.nice(19)
    port, seconds, way = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    print(*{"kept": keep, "piled": pile}[way](port, time.monotonic() + seconds))
