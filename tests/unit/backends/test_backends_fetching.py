"""Fetching by address, with real sockets: what a server can do to a fetcher, and what a name can."""

import asyncio
import contextlib
from ipaddress import ip_address

import pytest

from lingpai.backends.engines.addresses import is_own_address, is_public
from lingpai.backends.engines.fetching import Fetcher, FetchError, FetchRoom
from lingpai.errors import LingpaiError

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def answer(body=PNG, *, status="200 OK", content_type="image/png", more=""):
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@contextlib.asynccontextmanager
async def serving(reply):
    """A server that notes what it is asked and answers `reply`; None: never."""
    asked, handlers = [], []

    async def handle(reader, writer):
        handlers.append(asyncio.current_task())
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await asyncio.gather(*handlers)


def fetcher(*answers, **settings):
    """A fetcher whose names resolve to `answers`, one after the other, and which may go to this host."""
    queue = list(answers or ["127.0.0.1"])
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return [queue.pop(0) if len(queue) > 1 else queue[0]]

    here = {"is_allowed": lambda address: str(address) == "127.0.0.1", "is_own": lambda _: False}
    return Fetcher(resolve=resolve, **{**here, **settings}), asked


def fetch(reply, *, url="http://pictures.example:{port}/a.png", held_bytes=0, **settings):
    """What the fetcher brings from a server that answers `reply`, and what that server was asked."""

    async def run():
        async with serving(reply) as (port, asked):
            return await fetcher(**settings)[0].fetch(url.format(port=port), held_bytes=held_bytes), asked

    return asyncio.run(run())


def refusal(reply, **settings):
    with pytest.raises(FetchError) as caught:
        fetch(reply, **settings)
    return str(caught.value)


def test_the_connection_goes_to_the_address_and_the_host_header_keeps_the_name():
    fetched, asked = fetch(answer())

    assert (fetched.data, fetched.media_type) == (PNG, "image/png")
    head = asked[0].decode().lower()
    assert head.startswith("get /a.png http/1.1\r\n")
    assert "\r\nhost: pictures.example:" in head
    assert "\r\naccept-encoding: identity\r\n" in head


def test_owasp_api7_a_name_is_resolved_once_so_rebinding_gains_nothing():
    async def run():
        async with serving(answer()) as (port, _):
            first, asked = fetcher("127.0.0.1", "10.0.0.1")
            await first.fetch(f"http://rebinding.example:{port}/")
            return asked

    assert asyncio.run(run()) == ["rebinding.example"]


def test_one_inner_address_among_public_ones_refuses_the_name():
    async def resolve(host, port):
        return ["93.184.216.34", "::ffff:169.254.169.254"]

    with pytest.raises(FetchError, match="no address on the public internet"):
        asyncio.run(Fetcher(resolve=resolve).fetch("https://two.example/a.png"))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "[::]", "0.0.0.0", "169.254.169.254", "[::ffff:127.0.0.1]"]
)
def test_owasp_api7_this_host_is_refused_by_every_name(host):
    with pytest.raises(FetchError):
        asyncio.run(Fetcher().fetch(f"http://{host}:8741/"))


def test_a_public_address_of_this_host_is_refused_before_anything_is_sent():
    async def run():
        async with serving(answer()) as (port, asked):
            own = fetcher(is_allowed=lambda _: True, is_own=is_own_address)[0]
            with pytest.raises(FetchError, match="not fetched from"):
                await own.fetch(f"http://own.example:{port}/a.png")
            return asked

    assert asyncio.run(run()) == []


def test_own_addresses_are_known_from_those_of_others():
    assert is_own_address(ip_address("127.0.0.1"))
    assert is_own_address(ip_address("::ffff:127.0.0.1"))
    assert is_own_address(ip_address("64:ff9b::127.0.0.1"))
    assert not is_own_address(ip_address("192.0.2.1"))
    assert not is_own_address(ip_address("2001:db8::1"))


def test_what_is_inside_and_what_does_not_exist_are_told_alike():
    """Otherwise callers could find out which names this network has."""

    async def resolve(host, port):
        if host == "nowhere.example":
            raise OSError("no such host")
        return ["10.0.0.5"]

    messages = set()
    for host in ("nowhere.example", "inside.example"):
        with pytest.raises(FetchError) as caught:
            asyncio.run(Fetcher(resolve=resolve).fetch(f"https://{host}/"))
        messages.add(str(caught.value).replace(host, "HOST"))

    assert messages == {"`HOST` has no address on the public internet, so it is not fetched from"}


def test_redirects_are_not_followed():
    moved = answer(b"", status="302 Found", more="location: http://169.254.169.254/latest\r\n")

    assert "status 302" in refusal(moved)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b'{"secret": 1}', "application/json"), (b"<html>", "text/html"), (b"root:x", ""),
     (b"root:x", "application/octet-stream"), (PNG, "text/plain")],
)  # fmt: skip
def test_owasp_api7_only_media_comes_back(body, content_type):
    message = refusal(answer(body, content_type=content_type))

    assert "neither a picture nor a sound" in message
    assert "secret" not in message


def test_an_untyped_picture_is_known_by_its_first_bytes():
    assert fetch(answer(content_type="binary/octet-stream"))[0].media_type == "image/png"


def test_owasp_api10_size_and_time_of_what_is_fetched_are_bounded():
    assert "fetches over 10 bytes" in refusal(answer(), max_bytes=10)
    assert "within 0.2 s" in refusal(None, timeout_s=0.2)


def test_a_compressed_answer_is_refused():
    assert "compressed" in refusal(answer(more="content-encoding: gzip\r\n"))


@pytest.mark.parametrize(
    "reply", [b"not HTTP at all\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nx"]
)
def test_garbage_is_a_refusal(reply):
    assert "could not be read from" in refusal(reply)


def test_it_can_be_switched_off():
    assert "does not fetch" in refusal(answer(), is_enabled=False)


def test_the_guard_is_on_unless_a_test_says_otherwise():
    assert Fetcher().is_allowed is is_public
    assert Fetcher().is_own is is_own_address
    assert not Fetcher().is_allowed(ip_address("127.0.0.1"))


# -- what a request, and a worker, may hold of it


def test_what_one_request_fetches_is_bounded_together():
    assert "fetches over 1000 bytes" in refusal(answer(), max_bytes=1000, held_bytes=980)
    assert fetch(answer(), max_bytes=1000, held_bytes=900)[0].data == PNG


def test_what_a_worker_holds_is_given_back_when_a_request_is_over():
    async def run():
        async with serving(answer()) as (port, _):
            patient = fetcher(room=FetchRoom(max_held_bytes=len(PNG) + 5))[0]

            async def request():
                await patient.fetch(f"http://pictures.example:{port}/")
                await done.wait()

            done = asyncio.Event()
            first = asyncio.create_task(request())
            await asyncio.sleep(0.1)
            with pytest.raises(LingpaiError, match="Try again") as caught:
                await asyncio.create_task(request())
            done.set()
            await first
            await asyncio.create_task(request())
            return caught.value

    error = asyncio.run(run())

    assert (error.code, error.headers) == ("backend_unavailable", {"retry-after": "5"})


def test_only_so_many_are_fetched_at_a_time_and_others_wait():
    under_way, most = 0, 0

    class Counting(Fetcher):
        async def _fetch(self, place, held_bytes):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.02)
            under_way -= 1

    async def run(patience):
        fetcher = Counting(room=FetchRoom(max_at_once=3), timeout_s=patience)
        fetches = [fetcher.fetch(f"https://a.example/{number}") for number in range(9)]
        return await asyncio.gather(*fetches, return_exceptions=True)

    assert asyncio.run(run(5)) == [None] * 9
    assert most == 3
    assert [type(outcome) for outcome in asyncio.run(run(0.01))[3:]] == [LingpaiError] * 6
