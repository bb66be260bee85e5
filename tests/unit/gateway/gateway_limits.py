"""Real limits for the gateway's tests: the memory engine over an empty history."""

import asyncio

from gateway_fakes import FakeFront, principal

from lingpai.prices import parse_price
from lingpai.quotas.limiter import MemoryLimiter
from lingpai.quotas.loader import MeterLoader

PRICE = parse_price({"input": "1", "output": "2", "currency": "USD"})


class VirtualClock:
    """Unix time that goes on only when the test says so."""

    def __init__(self):
        self.now = 1_795_161_600.0

    def __call__(self):
        return self.now


class NoHistory:
    """Nothing was charged yet."""

    def charged_since(self, subject, unit, since):
        return 0

    def charges_since(self, subject, unit, since):
        return []


def real_limiter():
    return MemoryLimiter(NoHistory())


def loader(limiter):
    """Quotas' loader over a history that is always complete."""

    async def reached(mark):
        return True

    return MeterLoader(limiter, mark=lambda: 0, reached=reached)


def limit(stage, *limits, key=b"sk-lp-known", key_id="k1", **fields):
    """A caller whose key has `limits`; answers their meters."""
    limiter, subject = stage.limiter, ("key", key_id)
    meters = limiter.attach(subject, limits, limiter.read_history(subject, limits))
    stage.allow(principal(key_id=key_id, **fields), meters=meters, key=key)
    return meters


def turn(stage, times=3):
    """Let the loop run what is due."""

    async def turns():
        for _ in range(times):
            await asyncio.sleep(0)

    stage.gateway.loop.run_until_complete(turns())


def turn_until(stage, condition):
    """Let the loop run until `condition` holds."""

    async def turns():
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    stage.gateway.loop.run_until_complete(turns())


def wait(stage, seconds):
    stage.gateway.loop.run_until_complete(asyncio.sleep(seconds))


def chat(stage, *, text="hi", front=None, key=b"sk-lp-known", model="acme/chat", **fields):
    """A chat call and its caller's connection."""
    front = front or FakeFront()
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return stage.call(body=body, front=front, key=key), front
