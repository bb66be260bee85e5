"""A scripted backend, a pool of connections to it, and a receiver that notes what it is told."""

import asyncio
import contextlib

from lingpai.lane.upstream_pool import Origin, UpstreamPool
from tests.fakes.scripted_server import scripted_server

REQUEST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"


class Recorder:
    """A receiver that notes what it is told."""

    def __init__(self):
        self.upstream = None
        self.retries = 0
        self.is_over = False
        self.status = None
        self.headers = {}
        self.body = b""
        self.failure = None
        self.calls = []
        self.raises_at = None
        self.error = None
        self.has_started = asyncio.Event()
        self.has_data = asyncio.Event()
        self.has_ended = asyncio.Event()

    def response_started(self, status, headers):
        self._note("started")
        self.status, self.headers = status, headers
        self.has_started.set()

    def response_data(self, data):
        self._note("data")
        self.body += data
        self.has_data.set()

    def response_quiet(self):
        self.calls.append("quiet")

    def response_finished(self):
        self._note("finished")
        self.has_ended.set()

    def response_failed(self, failure, detail):
        self._note("failed")
        self.failure = failure
        self.has_ended.set()

    def response_broken(self, error):
        self.calls.append("broken")
        self.error = error
        self.has_ended.set()

    def _note(self, step):
        self.calls.append(step)
        if step == self.raises_at:
            raise KeyError(step)

    async def end(self):
        await self.has_ended.wait()
        return self


class SetClock:
    """The running loop, but for the time, which the test sets: for a pool whose sweep is called by hand."""

    def __init__(self):
        self.now = 1000.0
        self._loop = asyncio.get_running_loop()

    def time(self):
        return self.now

    def __getattr__(self, name):
        return getattr(self._loop, name)


@contextlib.asynccontextmanager
async def backend(script, *, socket_path=None, loop=None, **options):
    """A scripted server and a pool of connections to it."""
    async with scripted_server(script, socket_path=socket_path) as server:
        origin = Origin("127.0.0.1", server.port, socket_path=str(socket_path) if socket_path else None)
        pool = UpstreamPool(origin, loop=loop or asyncio.get_running_loop(), **options)
        try:
            yield server, pool
        finally:
            await pool.close()
            await asyncio.sleep(0)


def send(pool, request=REQUEST) -> Recorder:
    recorder = Recorder()
    pool.send(request, recorder)
    return recorder


async def fetch(pool, request=REQUEST) -> Recorder:
    return await send(pool, request).end()


async def settled():
    """Lets what is on its way over the loopback arrive."""
    await asyncio.sleep(0.03)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


async def echo(connection):
    """Answers every request with its number on the connection."""
    while True:
        await connection.request()
        await connection.answer(b"%d.%d" % (connection.number, len(connection.requests)))


def send_once(*pieces, then_close=True):
    """A script that answers one request with these bytes, each piece on its own."""

    async def script(connection):
        await connection.request()
        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(0.005)
        if then_close:
            connection.close()
        await connection.gone()

    return script
