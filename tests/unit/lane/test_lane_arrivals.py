"""Who comes to a TLS port: the ways to hold a place without ever getting through."""

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest
from front_harness import get, post, settled

from lingpai.lane import arrivals as arrivals_module
from lingpai.lane.doorman import Bounds
from lingpai.lane.tls import ServerTls, TlsFiles
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority):
    return ServerTls(TlsFiles(*authority.issue()))


@pytest.fixture
def client(authority):
    return authority.client_context()


async def asked(running, client, data=None):
    """The answer that a caller who knows TLS gets."""
    caller = await running.caller(client)
    await caller.send(data or post(b"/call", b"hi"))
    return await caller.answer()


def hello(client):
    """The first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


async def is_closed(caller):
    """Whether the server has closed it, with or without a reset; within the test's time."""
    with contextlib.suppress(ConnectionError):
        return await caller.rest() == b""
    return True


def test_calls_and_the_application_are_answered_over_tls(run, lane, tls, client):
    async def test():
        async with lane(tls=tls) as running:
            answers = [await asked(running, client), await asked(running, client, get(b"/asgi"))]
            scope = running.app.scopes[0]
            return answers, scope["scheme"], scope["client"][0], running.calls.opened[0].front.caller_address

    answers, *seen = run(test())
    assert answers == [(200, b"call:hi"), (200, b"asgi:GET /asgi ")]
    assert seen == ["https", "127.0.0.1", "127.0.0.1"]


def test_administration_socket_has_no_tls(run, lane, tls):
    async def test():
        async with lane(tls=tls) as running:
            caller = await running.local_caller()
            await caller.send(post(b"/call", b"hi"))
            return await caller.answer()

    assert run(test()) == (200, b"call:hi")


def test_http_1_1_is_agreed_on(run, lane, tls, client):
    client.set_alpn_protocols(["h2", "http/1.1"])

    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller(client)
            return caller.writer.get_extra_info("ssl_object").selected_alpn_protocol()

    assert run(test()) == "http/1.1"


# -- clear text


def test_plain_http_hears_that_the_port_speaks_tls(run, lane, tls):
    async def test():
        async with lane(tls=tls) as running:
            status, text, rest = await running.ask(post(b"/call", b"x" * 100_000))
            return status, text.decode(), rest, running.calls.opened

    status, text, rest, opened = run(test())
    assert (status, rest, opened) == (400, b"", [])
    assert "use https://" in text
    assert "not encrypted" in text


@pytest.mark.parametrize(
    "data", [b"\x80\x2e\x01\x03\x01", b"\0\0\0\0", b"hello\r\n", b"\x15\x03\x01\x00\x02\x02\x28"]
)
def test_what_is_neither_is_closed(run, lane, tls, data):
    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            await caller.send(data)
            return await is_closed(caller), len(running.server.arrivals)

    assert run(test()) == (True, 0)


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_who_leaves_in_the_middle_of_the_first_message_is_forgotten(run, lane, tls, client, cut):
    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            await caller.send(hello(client)[:cut])
            await settled()
            before = len(running.server.arrivals)
            caller.close()
            await settled()
            return before, len(running.server.arrivals)

    assert run(test()) == (1, 0)


def test_broken_handshake_is_closed_and_counted(run, lane, tls, client):
    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            message = hello(client)
            await caller.send(message[:5] + b"\xff" * (len(message) - 5))
            return await is_closed(caller), running.server.arrivals.failed, len(running.server.fronts)

    assert run(test()) == (True, 1, 0)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_protocols_get_no_connection(run, lane, tls, client, version):
    client.minimum_version = client.maximum_version = version
    client.set_ciphers("ALL:@SECLEVEL=0")

    async def test():
        async with lane(tls=tls) as running:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await running.caller(client)
            return len(running.server.fronts)

    assert run(test()) == 0


# -- slowness


def test_first_message_may_come_in_pieces(run, lane, tls, client):
    """A slow line is no attack."""

    async def test():
        async with lane(tls=tls) as running:
            listener = socket.create_server(("127.0.0.1", 0))
            relay = await asyncio.start_server(in_pieces(running.port), sock=listener)
            reader, writer = await asyncio.open_connection(
                *listener.getsockname(), ssl=client, server_hostname="localhost"
            )
            writer.write(post(b"/call", b"hi"))
            head = await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            relay.close()
            return head

    assert run(test()).startswith(b"HTTP/1.1 200")


def in_pieces(port):
    """A relay that passes a caller's bytes on a few at a time."""

    async def serve(reader, writer):
        there, here = await asyncio.open_connection("127.0.0.1", port)
        back = asyncio.create_task(pass_on(there, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(50):
                here.write(data)
                await asyncio.sleep(0.002)
        here.close()
        await back

    async def pass_on(source, writer):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                writer.write(data)
        writer.close()

    return serve


@pytest.fixture
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(arrivals_module, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(arrivals_module, "SWEEP_S", 0.05)


@pytest.mark.parametrize("sent", [0, 1, 5, 60])
@pytest.mark.usefixtures("_in_a_hurry")
def test_who_does_not_finish_the_first_message_is_closed_in_time(run, lane, tls, client, sent):

    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            await caller.send(hello(client)[:sent])
            return await is_closed(caller), len(running.server.arrivals)

    assert run(test()) == (True, 0)


def test_who_does_not_finish_the_handshake_is_closed_in_time(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr(arrivals_module, "HEAD_TIMEOUT_S", 0.3)

    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            await caller.send(hello(client))
            await caller.reader.readexactly(5)  # the server has answered
            with contextlib.suppress(ConnectionError):
                await caller.rest()
            return len(running.server.arrivals), len(running.server.fronts), running.server.arrivals.failed

    assert run(test()) == (0, 0, 1)


def test_when_too_many_say_nothing_the_longest_silent_go(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr(arrivals_module, "MOST_WAITING", 5)

    async def test():
        async with lane(tls=tls) as running:
            silent = [await running.caller() for _ in range(8)]
            await settled()
            closed = [caller.reader.at_eof() for caller in silent]
            return await asked(running, client), closed

    answer, closed = run(test())
    assert answer == (200, b"call:hi")
    assert closed == [True] * 3 + [False] * 5


def test_few_may_wait_where_few_connections_are_allowed(run, lane, tls, client):
    async def test():
        async with lane(tls=tls, bounds=Bounds(connections=16)) as running:
            silent = [await running.caller() for _ in range(6)]
            await settled()
            return await asked(running, client), sum(caller.reader.at_eof() for caller in silent)

    assert run(test()) == ((200, b"call:hi"), 5)  # two are left, and one makes room


def test_handshake_that_lingers_makes_room_for_who_waits(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr(arrivals_module, "MOST_HANDSHAKES", 2)
    monkeypatch.setattr(arrivals_module, "HURRY_S", 0.1)
    monkeypatch.setattr(arrivals_module, "SWEEP_S", 0.05)

    async def test():
        async with lane(tls=tls) as running:
            for _ in range(6):
                caller = await running.caller()
                await caller.send(hello(client))
            await settled()
            waiting = len(running.server.arrivals)
            return waiting, await asked(running, client)

    assert run(test()) == (6, (200, b"call:hi"))


def test_handshake_may_take_its_time_while_nobody_waits(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr(arrivals_module, "HURRY_S", 0.0)
    monkeypatch.setattr(arrivals_module, "SWEEP_S", 0.01)

    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller()
            await caller.send(hello(client))
            await caller.reader.readexactly(5)
            await asyncio.sleep(0.1)
            return len(running.server.arrivals)

    assert run(test()) == 1


# -- the doorman


def test_share_of_an_address_counts_who_has_not_finished(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr("lingpai.lane.doorman.is_shared", lambda address: not address)

    async def test():
        async with lane(tls=tls, bounds=Bounds(connections_per_address=2)) as running:
            silent = [await running.caller(), await running.caller()]
            await settled()
            third = await running.caller()
            is_turned_away = await is_closed(third)
            silent[0].close()
            await settled()
            answer = await asked(running, client)
            counted = dict(running.server.doorman._connections)
            running.close_callers()
            await settled()
            return is_turned_away, answer, counted, running.server.doorman._connections

    assert run(test()) == (True, (200, b"call:hi"), {"127.0.0.1": 2}, {})


def test_house_that_is_full_gives_the_share_back(run, lane, tls, client, monkeypatch):
    monkeypatch.setattr("lingpai.lane.doorman.is_shared", lambda address: not address)

    async def test():
        async with lane(tls=tls, bounds=Bounds(connections=1, connections_per_address=9)) as running:
            first = await running.caller(client)
            await first.send(post(b"/call/wait"))
            await running.call()
            second = await running.caller(client)
            await second.send(post(b"/call"))
            refused = await second.answer()
            running.close_callers()
            await asyncio.sleep(0.4)
            return refused, running.calls.refused[0][0], running.server.doorman._connections

    assert run(test()) == ((503, b"bad"), 503, {})


def test_who_is_not_through_when_the_server_stops_is_dropped(run, lane, tls, client):
    async def test():
        async with lane(tls=tls) as running:
            silent, half = await running.caller(), await running.caller()
            await half.send(hello(client))
            await half.reader.readexactly(5)
            await running.server.drain()
            return await is_closed(silent), len(running.server.arrivals)

    assert run(test()) == (True, 0)


def test_lack_of_descriptors_stops_accepting_for_a_moment(run, lane, tls, client, caplog):
    class Listener:
        """Fails once, as the kernel does when the process has too many files open."""

        def __init__(self, real):
            self.real, self.has_failed = real, False

        def accept(self):
            if not self.has_failed:
                self.has_failed = True
                raise OSError(24, "Too many open files")
            return self.real.accept()

        def fileno(self):
            return self.real.fileno()

        def close(self):
            self.real.close()

    async def test():
        async with lane(tls=tls) as running:
            arrivals = running.server.arrivals
            arrivals._listener = Listener(arrivals._listener)
            return await asked(running, client)

    with caplog.at_level(logging.ERROR):
        assert run(test()) == (200, b"call:hi")
    assert "connections cannot be accepted now: Too many open files" in caplog.text
