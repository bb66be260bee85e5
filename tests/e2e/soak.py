"""Callers by the thousand: a pack of calls of every kind, shuffled, made over some connections, each answer checked."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import cast

import uvloop

from lingpai.ids import mint_credential
from tests.e2e.raw_http import chat, post_bytes
from tests.fakes.fast_upstream import LEAVER, MODEL

CALLERS = 64
CHAT = "/v1/chat/completions"
PATIENCE_S = 120
"""How long all callers together may take for one load; one that waits for ever must fail the test, not stop it."""


class Kind(Enum):
    """What a caller does."""

    CALL = 1
    STREAM = 2
    LEAVE = 3
    REFUSED = 4
    UNKNOWN = 5


_STATUS_LINES = {
    Kind.CALL: b"HTTP/1.1 200 ",
    Kind.STREAM: b"HTTP/1.1 200 ",
    Kind.LEAVE: b"HTTP/1.1 200 ",
    Kind.REFUSED: b"HTTP/1.1 429 ",
    Kind.UNKNOWN: b"HTTP/1.1 401 ",
}
_FIRST_EVENT = b'"delta"'
_LAST_EVENT = b"data: [DONE]"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a caller."""

    kind: Kind
    request: bytes


def text_body(size: int, **fields: object) -> dict[str, object]:
    return chat("word " * (size // 5), model=MODEL, **fields)


class Pack:
    """1,000 calls and 100 streams, besides which there are 20 refused calls and 10 with keys that nobody has.

    Most are small; some have 8 kB, few 64 kB and one has 512 kB, in both directions. Five streams are left in the middle.
    """

    CALLS, STREAMS, LEAVING, REFUSED, UNKNOWN = 1000, 100, 5, 20, 10
    RECORDED = CALLS + STREAMS + REFUSED

    def __init__(self, keys: Sequence[str], *, spent: str) -> None:
        sizes = [524_288] + [65_536] * 9 + [8192] * 60 + [50] * (self.CALLS - 70)
        bodies = {size: text_body(size) for size in set(sizes)}
        stream, leave = text_body(50, stream=True), text_body(50, stream=True, user=LEAVER)
        kinds = [(Kind.CALL, bodies[size]) for size in sizes]
        kinds += [(Kind.STREAM, stream)] * (self.STREAMS - self.LEAVING)
        kinds += [(Kind.LEAVE, leave)] * self.LEAVING
        self._steps = [
            Step(kind, post_bytes(CHAT, body, key=keys[number % len(keys)]))
            for number, (kind, body) in enumerate(kinds)
        ]
        self._steps += [Step(Kind.REFUSED, post_bytes(CHAT, bodies[50], key=spent))] * self.REFUSED
        self._small = bodies[50]

    def steps(self, packs: int, *, seed: int) -> Iterator[Step]:
        """The steps of so many packs, each in an order of its own."""
        dice = random.Random(seed)
        for _ in range(packs):
            steps = self._steps + [self._unknown() for _ in range(self.UNKNOWN)]
            dice.shuffle(steps)
            yield from steps

    def _unknown(self) -> Step:
        """A key that is well-formed, so that its form does not give it away, and never the same."""
        return Step(Kind.UNKNOWN, post_bytes(CHAT, self._small, key=mint_credential("sk-lp-").token))


@dataclass
class Load:
    """Makes the calls of `steps`. `done` counts those whose answer was right, `errors` everything else."""

    port: int
    steps: Iterator[Step]
    done: Counter[Kind] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def run(self) -> "Load":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())
        return self

    async def _run(self) -> None:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._caller())

    async def _caller(self) -> None:
        """Connect, again and again, until nothing is left to be called."""
        loop = asyncio.get_running_loop()
        is_last = False
        while not is_last:
            over: asyncio.Future[bool] = loop.create_future()
            await loop.create_connection(partial(_Caller, self, over), "127.0.0.1", self.port)
            is_last = await over


class _Caller(asyncio.Protocol):
    """One connection: a step, its answer, the next step. `over` is told whether there was no step left."""

    def __init__(self, load: Load, over: "asyncio.Future[bool]") -> None:
        self._load = load
        self._over = over
        self._step: Step | None = None
        self._answer = b""
        self._is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        answer = self._answer = self._answer + data if self._answer else data
        step = self._step
        if step is None or not answer.startswith(_STATUS_LINES[step.kind]):
            self._fail(f"unexpected: {answer[:300]!r}")
        elif step.kind is Kind.LEAVE:
            if _FIRST_EVENT in answer:
                self._step = None
                self._load.done[step.kind] += 1
                self._transport.abort()
        elif _is_complete(answer, is_stream=step.kind is Kind.STREAM):
            self._load.done[step.kind] += 1
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if self._step is not None:
            self._fail("connection lost")
        self._over.set_result(self._is_last)

    def _next(self) -> None:
        self._answer = b""
        self._step = next(self._load.steps, None)
        if self._step is None:
            self._is_last = True
            self._transport.close()
        else:
            self._transport.write(self._step.request)

    def _fail(self, what: str) -> None:
        kind = self._step.kind.name if self._step else "nothing asked"
        self._step = None
        self._load.errors[f"{kind}: {what}"] += 1
        self._transport.abort()


def _is_complete(answer: bytes, *, is_stream: bool) -> bool:
    """Whether `answer` has its end: the last chunk and before it [DONE], or as many bytes as its head announces."""
    if is_stream:
        return answer.endswith(_LAST_CHUNK) and _LAST_EVENT in answer
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    return len(body) >= int(length.partition(b"\r\n")[0])
