"""A certificate is renewed under load: new handshakes get it, and nothing that was under way notices."""

import asyncio
import contextlib
import signal
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.e2e.conftest import MakeServer
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, chat, post_bytes
from tests.fakes.openai_engine import EngineCall, FakeEngine, chunk

CHAT = "/v1/chat/completions"
STREAMS = 20
CALLERS = 6


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def server(make_server: MakeServer, authority: Authority, engine: FakeEngine) -> LingpaiServer:
    certificate, key = authority.issue()
    config = f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n'
    return make_server(engine.url, config=config).start()


def certificate_of(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def shown(server: LingpaiServer, authority: Authority) -> bytes | None:
    """The certificate that a new connection sees."""
    with RawConnection(server.port, tls=authority.client_context()) as connection:
        return connection.certificate


def wait_until_shown(server: LingpaiServer, authority: Authority, certificate: bytes, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while shown(server, authority) != certificate:
        assert time.monotonic() < deadline, server.stderr
        time.sleep(0.05)


@dataclass
class Load:
    """Streams that last, connections that stay, and new connections all the time."""

    server: LingpaiServer
    tls: ssl.SSLContext
    engine: FakeEngine
    key: str
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    certificates: set[bytes] = field(default_factory=set)
    calls: int = 0
    new_connections: int = 0

    async def stream(self) -> int:
        """One stream, until the load is over; how many words came. Raises when it breaks off."""
        reader, writer = await self._connect()
        body = chat(stream=True, script=self.engine.script(self._words))
        writer.write(post_bytes(CHAT, body, key=self.key))
        received = await reader.readuntil(b"data: [DONE]\n\n")
        await self._close(writer)
        return received.count(b"word")

    async def _words(self, call: EngineCall) -> None:
        await call.stream_head()
        while not self.is_over.is_set():
            await call.event(chunk(call.json, {"content": "word"}))
            await asyncio.sleep(0.05)
        await call.event(chunk(call.json, {}, "stop"))
        await call.event(b"[DONE]")
        await call.chunk(b"")

    async def call_again_and_again(self, *, on_new_connections: bool) -> None:
        connection = None
        while not self.is_over.is_set():
            connection = connection or await self._connect()
            reader, writer = connection
            writer.write(post_bytes(CHAT, chat(), key=self.key))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200 "), head
            length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
            await reader.readexactly(length)
            self.calls += 1
            if on_new_connections:
                await self._close(writer)
                connection = None
            await asyncio.sleep(0.01)
        if connection is not None:
            await self._close(connection[1])

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        """To the end, `close_notify` included: else it would outlive the loop."""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.tls, server_hostname="localhost"
        )
        self.new_connections += 1
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.certificates.add(certificate)
        return reader, writer


@pytest.mark.parametrize("told", [False, True], ids=["files", "SIGHUP"])
def test_renewal_under_load_drops_nothing(server, authority, engine, told):
    """The files are replaced three times, and once by a pair that does not fit."""
    paths = [authority.path.with_name("server.pem"), authority.path.with_name("server.key")]
    seen = [certificate_of(paths[0])]

    def renew() -> None:
        authority.issue()
        if told:
            server.process.send_signal(signal.SIGHUP)
        seen.append(certificate_of(paths[0]))
        wait_until_shown(server, authority, seen[-1], 10)
        time.sleep(0.5)  # others shall see it, too

    def break_and_mend() -> None:
        good = paths[1].read_bytes()
        paths[1].write_bytes(authority.issue("other")[1].read_bytes())
        if told:
            server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "the old one stays" not in server.stderr and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown(server, authority) == seen[-1]
        paths[1].write_bytes(good)

    async def play() -> Load:
        load = Load(server, authority.client_context(), engine, server.make_key("load"))
        streams = [asyncio.create_task(load.stream()) for _ in range(STREAMS)]
        calls = [
            asyncio.create_task(load.call_again_and_again(on_new_connections=number % 3 > 0))
            for number in range(CALLERS)
        ]
        await asyncio.sleep(0.5)
        for step in (renew, renew, break_and_mend, renew):
            await asyncio.to_thread(step)
        load.is_over.set()
        words = await asyncio.wait_for(asyncio.gather(*streams), 20)
        await asyncio.wait_for(asyncio.gather(*calls), 20)
        assert min(words) > 5
        return load

    load = asyncio.run(play())

    assert {seen[0]} < load.certificates <= set(seen)
    assert load.new_connections > STREAMS + CALLERS
    assert server.stderr.count("a new TLS certificate is in use") == 3
    assert server.stderr.count("the old one stays") == 1
    assert "is not the one of the certificate" in server.stderr
    assert len(server.records("status = 200")) == load.calls + STREAMS


def test_sighup_takes_other_paths(server, authority):
    """A restart is needed to begin or end with TLS, and not for other files."""
    certificate, key = authority.issue("elsewhere")
    config = server.folder / "lingpai.toml"
    config.write_text(f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n')

    server.process.send_signal(signal.SIGHUP)
    wait_until_shown(server, authority, certificate_of(certificate), 5)
    config.write_text("")
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while "a restart is needed for server.tls_cert, server.tls_key" not in server.stderr:
        assert time.monotonic() < deadline, server.stderr
        time.sleep(0.02)

    assert "changed server.tls_cert, server.tls_key" in server.stderr
    assert shown(server, authority) == certificate_of(certificate)
