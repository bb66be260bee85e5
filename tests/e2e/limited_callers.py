"""Two hundred callers under limits of every unit, some of whom leave at random moments."""

import asyncio
import collections
import contextlib
import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.raw_http import chat, post_bytes

CALLERS = 200
CALLS_EACH = 12
AT_ONCE_ON_THE_MODEL = 25
MODEL = "fake/chat"

USER = ("60000 tokens/day", "0.15 USD/month")
KEYS = {
    "batch": ("20000 tokens/day@Asia/Shanghai", "70 requests/day"),
    "app": ("6000 tokens/week", "12 concurrent"),
    "web": ("none",),
}
EACH_USER = ("55000 tokens/day", "3000/1h")
ON_MODEL = (f"{AT_ONCE_ON_THE_MODEL} concurrent", "1 USD/day")
REFUSING = ("tokens per week", "USD per month")
"""What the limits above are chosen to refuse by, whatever order the calls come in."""
PRICES = {"input": "2.5", "output": "10", "currency": "USD"}


@dataclass
class Callers:
    """Two hundred callers at once; `statuses` counts what they were told, ``gone`` when they left before."""

    port: int
    keys: list[str]
    script: str
    seed: int
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    refused_by: collections.Counter[str] = field(default_factory=collections.Counter)
    """What was refused by which of `REFUSING`, and by another limit."""

    async def run(self) -> None:
        await asyncio.gather(*(self._caller(number) for number in range(CALLERS)))

    async def _caller(self, number: int) -> None:
        dice = random.Random(self.seed + number)
        for _ in range(CALLS_EACH):
            what = "connection lost"
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                what = await self._call(dice, self.keys[number % len(self.keys)])
            self.statuses[what] += 1

    async def _call(self, dice: random.Random, key: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(post_bytes("/v1/chat/completions", self._body(dice), key=key))
            if dice.random() < 0.25:
                await asyncio.sleep(dice.random() * 0.03)
                return "gone before the answer"
            try:
                status = await asyncio.wait_for(_read_status(reader), 20)
            except TimeoutError:
                return "no answer"
            if status == 429:
                self.refused_by[await _refusal(reader)] += 1
            elif status == 200 and dice.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(dice.random() * 0.05):
                        await reader.read()
                return "gone in the middle"
            return str(status)
        finally:
            writer.transport.abort()

    def _body(self, dice: random.Random) -> dict[str, Any]:
        body = chat(model=MODEL, stream=dice.random() < 0.6, script=self.script)
        body["messages"] = [{"role": "user", "content": "say something nice " * dice.randint(1, 10)}]
        if dice.random() < 0.95:  # without one, a call reserves all that is left
            body["max_tokens"] = dice.randint(5, 60)
        return body

    def check(self) -> None:
        """Every call was made, and ended in one of the ways it may."""
        assert self.statuses.total() == CALLERS * CALLS_EACH
        known = {"200", "429", "500", "502", "504", "gone before the answer", "gone in the middle"}
        assert set(self.statuses) <= known, self.statuses
        assert (
            min(
                self.statuses[what] for what in ("200", "429", "gone before the answer", "gone in the middle")
            )
            > 20
        )
        assert self.refused_by.keys() >= set(REFUSING), self.refused_by


async def _read_status(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    return int(line.split(b" ")[1]) if line else 0


async def _refusal(reader: asyncio.StreamReader) -> str:
    """The limit that a 429 is about."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    message = json.loads(await reader.readexactly(length))["error"]["message"]
    return next((words for words in REFUSING if words in message), "another")
