"""What tests with real workers have in common."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2


@asynccontextmanager
async def started(worker):
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def call(worker, command):
    """One call of the worker's model; the whole answer."""
    transport = httpx2.AsyncHTTPTransport(uds=str(worker.socket_path))
    async with httpx2.AsyncClient(transport=transport, base_url="http://worker", timeout=30) as client:
        return await client.post("/v1/predict", json={"input_data": command})


async def tell(worker, command):
    """What the worker's model returned."""
    return (await call(worker, command)).json()


async def wait_until(condition, seconds=15.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def is_running(pid):
    """A process that is neither gone nor waiting for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
