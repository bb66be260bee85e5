"""Callers from several addresses, as a program: it runs in the network of the server (test_e2e_addresses.py).

Prints a JSON list with what became of each address.
"""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SERVER = "192.0.2.1"


def connect(address: str, port: int) -> http.client.HTTPConnection:
    server = "127.0.0.1" if address.startswith("127.") else SERVER
    return http.client.HTTPConnection(server, port, timeout=30, source_address=(address, 0))


def ask(connection: http.client.HTTPConnection, method: str, path: str, key: str = "", body: str = "") -> int:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"} if key else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def hold_connections(port: int, count: int, *addresses: str) -> list[list[int]]:
    """Statuses on `count` connections from each address, all kept open; the last list has one more status of each
    address, when those of the first address are closed.
    """
    held = {address: [connect(address, port) for _ in range(count)] for address in addresses}
    first = [[ask(each, "GET", "/healthz") for each in connections] for connections in held.values()]
    for each in held[addresses[0]]:
        each.close()
    time.sleep(0.3)  # for the server to notice
    again = [ask(connect(address, port), "GET", "/healthz") for address in addresses]
    return [*first, again]


def call_at_once(port: int, count: int, key: str, *addresses: str) -> list[list[int]]:
    """Statuses of `count` calls that each address makes at once; the last list has one more of each, afterwards."""
    body = json.dumps({"model": "acme/slow", "input_data": 1.5})

    def call(address: str) -> int:
        return ask(connect(address, port), "POST", "/predict", key, body)

    with ThreadPoolExecutor(count * len(addresses)) as pool:
        under_way = [[pool.submit(call, address) for _ in range(count)] for address in addresses]
        at_once = [sorted(each.result() for each in calls) for calls in under_way]
    return [*at_once, [call(address) for address in addresses]]


if __name__ == "__main__":
    what, port, count, *rest = sys.argv[1:]
    print(
        json.dumps(
            {"connections": hold_connections, "calls": call_at_once}[what](int(port), int(count), *rest)
        )
    )
