"""Encrypted connections: client certificates, and callers who read slowly or not at all."""

import asyncio
import socket
import ssl
import time

import pytest
from front_harness import get, post, settled

from lingpai.lane import front as front_module
from lingpai.lane.tls import ServerTls, TlsFiles
from lingpai.lane.tls_front import verified_names
from tests.certificates import Authority

BIG = 8_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """Whose certificates the server takes."""
    return Authority(tmp_path_factory.mktemp("clients"), "Authority of clients")


@pytest.fixture
def tls(authority):
    return ServerTls(TlsFiles(*authority.issue()))


async def asked(running, client, data=None):
    caller = await running.caller(client)
    await caller.send(data or post(b"/call", b"hi"))
    return await caller.answer()


# -- client certificates


@pytest.mark.parametrize("wish", ["optional", "required"])
def test_verified_names_of_a_client_are_known(run, lane, authority, clients, wish):
    tls = ServerTls(TlsFiles(*authority.issue(), clients.path, wish))
    names = ("batch.example", "spiffe://example/batch")
    client = authority.client_context(clients.issue("client", common_name="Batch", names=names))

    async def test():
        async with lane(tls=tls) as running:
            answer = await asked(running, client)
            return answer, running.calls.opened[0].front.certificate_names

    assert run(test()) == ((200, b"call:hi"), names)


@pytest.mark.parametrize(
    "expected",
    [("off", [200, 200], 1), ("optional", [200, 200], 1), ("required", [400, 400], 0)],
)
def test_client_without_a_certificate_hears_so_where_one_is_required(run, lane, authority, clients, expected):
    wish, answers, opened = expected
    files = TlsFiles(*authority.issue(), None if wish == "off" else clients.path, wish)

    async def test():
        async with lane(tls=ServerTls(files)) as running:
            client = authority.client_context()
            seen = [(await asked(running, client, request))[0] for request in (post(b"/call"), get())]
            return seen, len(running.calls.opened), len(running.app.scopes), running.calls.refused

    seen, calls, scopes, refused = run(test())
    assert (seen, calls, scopes) == (answers, opened, opened)
    assert len(refused) == answers.count(400)
    assert all("certificate" in message for _, message in refused)


@pytest.mark.parametrize("wish", ["optional", "required"])
def test_certificate_of_another_authority_gets_no_connection(run, lane, authority, clients, wish):
    tls = ServerTls(TlsFiles(*authority.issue(), clients.path, wish))
    client = authority.client_context(authority.issue("stranger"))

    async def test():
        async with lane(tls=tls) as running:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await asked(running, client)
            return running.calls.opened, running.calls.refused

    assert run(test()) == ([], [])


def test_certificate_of_a_client_that_has_ended_gets_no_connection(run, lane, authority, clients):
    tls = ServerTls(TlsFiles(*authority.issue(), clients.path, "optional"))
    client = authority.client_context(clients.issue("ended", days=-1, began_days_ago=9))

    async def test():
        async with lane(tls=tls) as running:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await asked(running, client)
            return running.calls.opened

    assert run(test()) == []


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        (
            {"subject": ((("commonName", "a"),),), "subjectAltName": (("DNS", "b"), ("URI", "c:d"))},
            ("b", "c:d"),
        ),
        ({"subject": ((("organizationName", "x"),), (("commonName", "a"),))}, ("a",)),
        ({"subject": ((("commonName", "a"),),), "subjectAltName": (("IP Address", "192.0.2.1"),)}, ("a",)),
        ({"subject": ()}, ()),
    ],
)
def test_names_are_the_alternative_ones_else_the_common_one(certificate, names):
    assert verified_names(certificate) == names


# -- slow readers


def slow_caller(port, client):
    """A blocking connection whose kernel holds little."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    plain.connect(("127.0.0.1", port))
    plain.settimeout(5)
    return client.wrap_socket(plain, server_hostname="localhost")


def read_slowly(connection, first=0.3):
    """Everything until the end, after a while in which nothing was read."""
    time.sleep(first)
    received = bytearray()
    while data := connection.recv(200_000):
        received += data
    return bytes(received)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_answer_of_megabytes_reaches_who_reads_late(run, lane, tls, authority, keep_alive):
    """Also when the connection is closed behind it."""
    body = bytes(range(250)) * (BIG // 250)

    async def test():
        async with lane(tls=tls) as running:
            connection = await asyncio.to_thread(slow_caller, running.port, authority.client_context())
            await asyncio.to_thread(connection.sendall, post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            call.answer(body, keep_alive=keep_alive)
            waiting = call.front.transport.get_write_buffer_size()
            if keep_alive:
                asyncio.get_running_loop().call_later(1, call.front.transport.close)
            received = await asyncio.to_thread(read_slowly, connection)
            connection.close()
            return waiting, received.partition(b"\r\n\r\n")[2] == body

    waiting, is_whole = run(test())
    assert waiting > BIG // 2
    assert is_whole


def test_who_does_not_read_pauses_the_call(run, lane, tls, authority):
    async def test():
        async with lane(tls=tls) as running:
            connection = await asyncio.to_thread(slow_caller, running.port, authority.client_context())
            await asyncio.to_thread(connection.sendall, post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            written = 0
            while "pause" not in call.told and written < 4 * BIG:
                call.front.write(b"x" * 10_000)
                written += 10_000
                await asyncio.sleep(0)
            held = call.front.transport.get_write_buffer_size()
            await asyncio.to_thread(connection.recv, 1)
            reading = asyncio.create_task(asyncio.to_thread(read_slowly, connection, 0))
            while "resume" not in call.told:
                await asyncio.sleep(0.01)
            call.front.transport.close()
            received = await reading
            connection.close()
            return held, call.told, len(received) + 1 == written

    held, told, is_whole = run(test())
    assert held < 1_000_000
    assert told[:3] == ["complete", "pause", "resume"]
    assert is_whole


def test_who_never_reads_is_dropped(run, lane, tls, authority, monkeypatch):
    """Whether the connection is open still or about to be closed."""
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 1.0)

    async def test():
        async with lane(tls=tls) as running:
            loop = asyncio.get_running_loop()
            left = []
            for keep_alive in (True, False):
                connection = await asyncio.to_thread(slow_caller, running.port, authority.client_context())
                await asyncio.to_thread(connection.sendall, post(b"/call/wait"))
                call = await running.call(len(left))
                await call.complete.wait()
                call.front._is_last = not keep_alive
                call.answer(b"x" * BIG, keep_alive=keep_alive)
                front = call.front
                for seconds in (0.0, 0.9, 1.8):
                    front.watch(loop.time() + seconds, 600.0)
                await settled()
                left.append(len(running.server.fronts))
                connection.close()
            return left

    assert run(test()) == [0, 0]


def test_who_has_read_everything_is_let_go_at_once(run, lane, tls, authority):
    async def test():
        async with lane(tls=tls) as running:
            caller = await running.caller(authority.client_context())
            began = asyncio.get_running_loop().time()
            await caller.send(post(b"/call", b"hi", b"x: y"))
            answer = await caller.answer()
            front = running.calls.opened[0].front
            front.transport.close()
            await caller.rest()
            return answer, asyncio.get_running_loop().time() - began < 1

    assert run(test()) == ((200, b"call:hi"), True)


def test_connection_that_is_to_be_closed_reads_no_further_request(run, lane, tls, authority):
    async def test():
        async with lane(tls=tls) as running:
            connection = await asyncio.to_thread(slow_caller, running.port, authority.client_context())
            await asyncio.to_thread(connection.sendall, post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            call.answer(b"x" * BIG, keep_alive=False)
            await asyncio.to_thread(connection.sendall, post(b"/call"))
            await asyncio.to_thread(read_slowly, connection)
            connection.close()
            return len(running.calls.opened)

    assert run(test()) == 1
