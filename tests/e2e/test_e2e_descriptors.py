"""A server that runs out of file descriptors: who is being served goes on being served, and nothing is lost."""

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, answer_well, chunks

DESCRIPTORS = 150
ALLOWED = (DESCRIPTORS - 128) * 2 // 3
"""The callers' connections that a server with so few descriptors takes (lane/server.py)."""
NEWCOMERS = 60


class Gate:
    """Calls of the engine that wait until the test lets them go on."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.is_open = threading.Event()
        self.unary, self.stream = engine.script(self._answer), engine.script(self._stream)

    async def _wait(self) -> None:
        while not self.is_open.is_set():
            await asyncio.sleep(0.01)

    async def _answer(self, call: EngineCall) -> None:
        await self._wait()
        await answer_well(call)

    async def _stream(self, call: EngineCall) -> None:
        await call.stream_head()
        for number, each in enumerate(chunks(call.json)):
            await call.event(each)
            if number == 1:
                await self._wait()
        await call.event(b"[DONE]")
        await call.chunk(b"")


@pytest.fixture
def gate(engine: FakeEngine) -> Iterator[Gate]:
    gate = Gate(engine)
    yield gate
    gate.is_open.set()


class Caller:
    """Makes calls with one key, and keeps the answers."""

    def __init__(self, server: LingpaiServer) -> None:
        self.server, self.key = server, server.make_key("caller")
        self.answers: list[RawAnswer] = []

    def ask(self, connection: RawConnection, **fields: object) -> int | None:
        """The status of a call on this connection; None when the server closed it."""
        try:
            connection.send(post_bytes("/v1/chat/completions", chat(**fields), key=self.key))
            answer = connection.read_answer()
        except (OSError, AssertionError):
            return None
        self.answers.append(answer)
        return answer.status

    def come(self, **fields: object) -> int | None:
        """The status of a call on a connection of its own."""
        with contextlib.suppress(OSError), RawConnection(self.server.port) as connection:
            return self.ask(connection, **fields)
        return None

    def check_records(self) -> None:
        """Each call that was answered is recorded once, as it ended, and nothing else is."""
        admitted = {each.headers["x-request-id"]: each.status for each in self.answers if each.status == 200}
        records = self.server.records("end_reason = 'complete'")
        assert {each["request_id"]: each["status"] for each in records} == admitted
        assert len(records) == len(admitted)


def begin_stream(connection: RawConnection, caller: Caller, gate: Gate) -> None:
    connection.send(post_bytes("/v1/chat/completions", chat(stream=True, script=gate.stream), key=caller.key))
    deadline = time.monotonic() + 10
    while not gate.engine.calls_of(gate.stream):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_stream(connection: RawConnection, caller: Caller) -> None:
    answer = connection.read_answer()
    assert (answer.status, answer.events[-1], answer.is_complete) == (200, "[DONE]", True)
    caller.answers.append(answer)


def test_server_with_few_descriptors_turns_away_whom_it_cannot_hold(
    make_server, engine: FakeEngine, gate: Gate
):
    """Calls under way keep their connections; newcomers hear why they cannot come in, and can later."""
    server = make_server(engine.url, under=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")).start()
    caller = Caller(server)

    with RawConnection(server.port) as streaming, ThreadPoolExecutor(NEWCOMERS) as pool:
        begin_stream(streaming, caller, gate)
        callers = [pool.submit(caller.come, script=gate.unary) for _ in range(NEWCOMERS)]
        deadline = time.monotonic() + 20
        while sum(each.done() for each in callers) <= NEWCOMERS - ALLOWED and time.monotonic() < deadline:
            time.sleep(0.05)
        turned_away = [each.result() for each in callers if each.done()]
        gate.is_open.set()
        served = [status for each in callers if (status := each.result()) == 200]
        end_stream(streaming, caller)

    assert turned_away == [503] * (NEWCOMERS - len(served))
    assert len(served) == ALLOWED - 1
    assert [caller.come() for _ in range(2 * ALLOWED)] == [200] * 2 * ALLOWED
    caller.check_records()
    assert "Traceback" not in server.stderr
    assert server.stop() == 0


def test_server_that_gets_no_more_descriptors_serves_whom_it_has_and_recovers(
    make_server, engine: FakeEngine, gate: Gate
):
    """The system gives less than it promised: accepting fails, and nothing else."""
    server = make_server(engine.url).start()
    caller = Caller(server)
    pid = server.process.pid

    with ExitStack() as stack:
        kept = [stack.enter_context(RawConnection(server.port)) for _ in range(5)]
        assert [caller.ask(each) for each in kept] == [200] * 5
        streaming = stack.enter_context(RawConnection(server.port))
        begin_stream(streaming, caller, gate)
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert caller.ask(kept[0]) == 200  # over a connection to the engine that stays
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        with ExitStack() as crowd:
            for _ in range(NEWCOMERS):
                with contextlib.suppress(OSError):  # closed already
                    crowd.enter_context(RawConnection(server.port)).send(b"POST /v1/chat")
            time.sleep(0.5)
            assert [caller.ask(each) for each in kept * 5] == [200] * 25
            began = time.monotonic()
            assert [caller.come() for _ in range(5)] == [None] * 5
            assert time.monotonic() - began < 5  # closed at once, so that they can try elsewhere
            with ThreadPoolExecutor(5) as pool:  # these need more connections to the engine than there are
                at_once = list(pool.map(caller.ask, kept))
            assert [caller.ask(each) for each in kept] == [200] * 5
        gate.is_open.set()
        end_stream(streaming, caller)
        time.sleep(0.5)
        assert caller.come() == 200

    assert set(at_once) <= {200, 503}
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    caller.check_records()
    assert "Traceback" not in server.stderr
    assert server.stop() == 0
