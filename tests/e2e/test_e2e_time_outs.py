"""Callers who take too long, on a real server with its real time-outs: all of them at once, because each takes a while."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from lingpai.lane.front import (
    BODY_TIMEOUT_S,
    HEAD_TIMEOUT_S,
    MIN_BODY_BYTES,
    MIN_READ_BYTES,
    WRITE_TIMEOUT_S,
)
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine

pytestmark = pytest.mark.slow

LATE_S = 10.0
"""How much later than promised a connection may close here: it is looked at every 2.5 s, and the machine is busy."""
KEEP_ALIVE_S = 20.0
CONFIG = f"""
[server]
keep_alive_s = {KEEP_ALIVE_S}

[[models]]
target = "{{engine}}"
"""
SEGMENT = 65536
"""What the loopback interface sends at once: a kernel tells of what was read when there is room for as much."""
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n"
EVENT = b"data: " + b'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % (b"x" * 10_000) + b"\n\n"


async def flood(call: EngineCall) -> None:
    """Events without end; notes when the other side has gone."""
    try:
        await call.stream_head()
        while True:
            await call.chunk(EVENT)
    except OSError:
        call.gone_at = time.monotonic()
        raise


class Callers:
    """What callers of one server do; each method is one caller."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

    def request(self, **fields: object) -> tuple[bytes, bytes]:
        """Head and body of a call."""
        head, mark, body = post_bytes("/v1/chat/completions", chat(**fields), key=self.key).partition(
            b"\r\n\r\n"
        )
        return head + mark, body

    def send_slowly(self, first: bytes, more: bytes) -> float:
        """Sends `first` and then `more` every second; how long the server puts up with it."""
        with RawConnection(self.port) as connection, suppress(OSError):
            connection.send(first)
            began = time.monotonic()
            while not connection.is_closed_within(1):
                connection.send(more)
        return time.monotonic() - began

    def send_body_at_the_least_rate(self) -> RawAnswer:
        """A little faster than the least, and for much longer than a body that stands still is waited for."""
        head, body = self.request(user="x" * (MIN_BODY_BYTES * 2))
        piece = MIN_BODY_BYTES // 20
        with RawConnection(self.port, timeout=60) as connection:
            connection.send(head)
            for start in range(0, len(body), piece):
                connection.send(body[start : start + piece])
                time.sleep(BODY_TIMEOUT_S / 25)
            return connection.read_answer()

    def read(self, script: str, *, size: int, every_s: float, seconds: float) -> None:
        """Reads so much of a stream so often."""
        head, body = self.request(stream=True, script=script)
        with RawConnection(self.port, receive_buffer=SEGMENT) as connection:
            connection.send(head + body)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if size:
                    connection.receive(size)
                time.sleep(every_s)


@pytest.mark.timeout(240)
def test_owasp_api4_callers_who_take_too_long_are_cut_off_in_time_and_others_are_not(
    make_server, engine: FakeEngine
):
    """Heads and bodies that do not come, answers that nobody takes; whoever keeps to the least rate is not hurt."""
    server = make_server(config=CONFIG.format(engine=engine.url)).start()
    callers = Callers(server.port, server.make_key("slow"))
    unfinished = HEAD + b"content-type: application/json\r\ncontent-length: 100000\r\n"
    unfinished += b"authorization: Bearer %b\r\n\r\n" % callers.key.encode()
    scripts = {name: engine.script(flood) for name in ("nothing", "hardly", "slowly", "steadily")}
    read = partial(callers.read, seconds=WRITE_TIMEOUT_S + LATE_S)

    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        heads = [pool.submit(callers.send_slowly, HEAD, more) for more in (b"", b"x: y\r\n")]
        bodies = [pool.submit(callers.send_slowly, unfinished, more) for more in (b"", b" ")]
        idle = [pool.submit(callers.send_slowly, b"", more) for more in (b"", b"\r\n")]
        patient = pool.submit(callers.send_body_at_the_least_rate)
        pool.submit(read, scripts["nothing"], size=0, every_s=1)
        pool.submit(read, scripts["hardly"], size=100, every_s=1)
        pool.submit(read, scripts["slowly"], size=10 * MIN_READ_BYTES // 60, every_s=1)
        pool.submit(read, scripts["steadily"], size=65536, every_s=0.05)
        time.sleep(WRITE_TIMEOUT_S + LATE_S - 1 - (time.monotonic() - began))
        streams = {name: engine.calls_of(script)[0] for name, script in scripts.items()}
        lasted = {name: call.gone_at - began if call.gone_at else None for name, call in streams.items()}

    assert [is_in_time(each.result(), HEAD_TIMEOUT_S) for each in heads] == [True] * 2
    assert [is_in_time(each.result(), BODY_TIMEOUT_S) for each in bodies] == [True] * 2
    assert [is_in_time(each.result(), KEEP_ALIVE_S) for each in idle] == [True] * 2
    assert patient.result().status == 200
    assert [is_in_time(lasted[name], WRITE_TIMEOUT_S) for name in ("nothing", "hardly")] == [True] * 2
    assert (lasted["slowly"], lasted["steadily"]) == (None, None)
    records = server.records()
    assert sorted(record["end_reason"] for record in records) == ["client_gone"] * 4 + ["complete"]
    assert server.stop() == 0


def is_in_time(seconds: float | None, promised: float) -> bool:
    return seconds is not None and promised <= seconds <= promised + LATE_S
