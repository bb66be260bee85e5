"""Callers who would fill the memory, or hold others up, on a real server: bodies without a key, large bodies, long waits."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, get, post, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, answer_well

MEGABYTE = 1_000_000
CONFIG = """
[gateway]
max_held_bytes = 40_000_000
max_held_bytes_per_key = 25_000_000

[[models]]
target = "{engine}"
name = "engine"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine: FakeEngine) -> Iterator[LingpaiServer]:
    folder = tmp_path_factory.mktemp("overload")
    server = LingpaiServer(folder, config=CONFIG.format(engine=engine.url)).start()
    yield server
    assert server.stop() == 0


def wait_until_held(server: LingpaiServer, amount: int) -> None:
    deadline = time.monotonic() + 10
    while (now := server.metric("lingpai_held_body_bytes")) != amount:
        assert time.monotonic() < deadline, f"{now} bytes are held"
        time.sleep(0.02)


def test_bodies_without_a_key_are_not_kept(server: LingpaiServer):
    """Each would be a megabyte for as long as its sender likes; the answer comes when the head is there."""
    head = post_bytes("/api/v1/keys", b"x" * MEGABYTE)[: -MEGABYTE // 2]
    before = server.resident_bytes()

    with ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(server.port)) for _ in range(200)]
        for connection in connections:
            with contextlib.suppress(ConnectionError):  # refused, and not read any further
                connection.send(head)
        growth = server.resident_bytes() - before

    assert growth < 40 * MEGABYTE


def test_caller_without_a_key_is_answered_before_the_body(server: LingpaiServer):
    with RawConnection(server.port) as connection:
        connection.send(post_bytes("/api/v1/keys", b"x" * 1000)[:-500])

        answer = connection.read_answer()

    assert (answer.status, answer.error["code"]) == (401, "missing_api_key")


def test_owasp_api4_bodies_of_calls_under_way_are_bounded_for_each_key(server: LingpaiServer):
    """Two of ten megabytes fit into the share of a key, a third does not; another key has a share of its own."""
    other = server.make_key("other")
    part = post_bytes("/v1/chat/completions", b"x" * 10 * MEGABYTE, key=server.key)[:100_000]
    part_of_other = post_bytes("/v1/chat/completions", b"x" * 10 * MEGABYTE, key=other)[:100_000]
    assert post(server.port, "/v1/chat/completions", chat(), key=server.key).status == 200
    assert post(server.port, "/v1/chat/completions", chat(), key=other).status == 200

    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(RawConnection(server.port)).send(part)
        wait_until_held(server, 20 * MEGABYTE)
        third = stack.enter_context(RawConnection(server.port))
        third.send(part)
        refused = third.read_answer()
        stack.enter_context(RawConnection(server.port)).send(part_of_other)
        wait_until_held(server, 30 * MEGABYTE)
        small = post(server.port, "/v1/chat/completions", chat(), key=server.key)

    wait_until_held(server, 0)
    assert (refused.status, refused.error["code"]) == (503, "server_busy")
    assert refused.headers["retry-after"] == "1"
    assert small.status == 200


def test_large_body_is_let_go_when_its_call_is_over(server: LingpaiServer):
    body = chat("x" * 5 * MEGABYTE)

    answers = [post(server.port, "/v1/chat/completions", body, key=server.key).status for _ in range(8)]

    assert answers == [200] * 8
    wait_until_held(server, 0)


def test_small_call_of_one_key_passes_a_large_one_of_another(server: LingpaiServer, engine: FakeEngine):
    """Both are held to the limit of their user: the large one waits for room, the small one has it."""
    server.admin("POST", "/api/v1/users", {"name": "ada", "limits": ["100k tokens/day wait 30s"]})
    keys = [
        server.admin("POST", "/api/v1/keys", {"name": name, "user": "ada"})["key"]
        for name in ("large", "small", "running")
    ]
    go_on = threading.Event()

    async def slow(call: EngineCall) -> None:
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        await answer_well(call)

    script = engine.script(slow)

    def call(key: str, most: int, **fields: object) -> int:
        body = chat(max_tokens=most, **fields)
        return post(server.port, "/v1/chat/completions", body, key=key).status

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(call, keys[2], 60_000, script=script)
        time.sleep(0.3)
        large = threads.submit(call, keys[0], 90_000)
        time.sleep(0.3)
        try:
            small = call(keys[1], 100)
            is_large_waiting = not large.done()
        finally:
            go_on.set()

    assert (small, is_large_waiting) == (200, True)
    assert (running.result(), large.result()) == (200, 200)


def test_document_is_there_and_is_not_made_twice(server: LingpaiServer):
    documents = [get(server.port, "/openapi.json") for _ in range(2)]

    assert documents[0].json["info"]["title"] == "Lingpai"
    assert documents[0].body == documents[1].body
