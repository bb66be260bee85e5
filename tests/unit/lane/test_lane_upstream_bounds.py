"""Upstream: backends that answer too much, in the wrong order, or what nobody asked for."""

import asyncio

import pytest
from upstream_harness import backend, echo, fetch, send, send_once, settled

from lingpai.lane.upstream import MAX_OVERHEAD_BYTES, Failure

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LINE = b"x-filler: " + b"a" * 4000 + b"\r\n"


def for_ever(begin, piece):
    """A script that answers one request with `begin`, and then sends `piece` until the other side closes."""

    async def script(connection):
        await connection.request()
        await connection.send(begin)
        while True:
            await connection.send(piece)
            await asyncio.sleep(0)

    return script


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", LINE),
        (b"HTTP/1.1 200 OK\r\nx-one: ", b"a" * 4000),
        (b"HTTP/1.1 200 " + b"O" * 100, b"K" * 4000),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 50),
        (b"", b"HTTP/1.1 103 Early Hints\r\n" + LINE + b"\r\n"),
        (CHUNKED + b"2;ext=", b"a" * 4000),
        (CHUNKED + b"2\r\nab\r\n0\r\n", LINE),
    ],
    ids=["headers", "header", "reason", "interim", "interim headers", "chunk extension", "trailers"],
)
def test_owasp_api10_a_head_or_framing_without_an_end_is_cut_off(run, begin, piece):
    async def test():
        async with backend(for_ever(begin, piece)) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.failure, count) == (Failure.GARBAGE, 0)
    assert answer.calls.count("failed") == 1


def test_large_body_is_no_overhead(run):
    """Only what is not body counts; how much of a body is too much is for the receiver to say."""
    body = b"x" * (8 * MAX_OVERHEAD_BYTES)
    chunks = b"".join(b"1;e=1\r\n%c\r\n" % byte for byte in body[: MAX_OVERHEAD_BYTES // 4])

    async def test():
        script = send_once(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        async with backend(script) as (_, pool):
            plain = await fetch(pool)
        async with backend(send_once(CHUNKED, chunks, b"0\r\n\r\n")) as (_, pool):
            return plain, await fetch(pool)

    plain, chunked = run(test())

    assert (len(plain.body), plain.failure) == (len(body), None)
    assert (len(chunked.body), chunked.failure) == (MAX_OVERHEAD_BYTES // 4, None)


def test_overhead_of_earlier_answers_does_not_count(run):
    """Heads that come in a piece of their own add up over the life of a connection."""

    async def script(connection):
        while True:
            await connection.request()
            await connection.send(b"HTTP/1.1 200 OK\r\n" + LINE * 40)
            await asyncio.sleep(0.002)
            await connection.send(b"content-length: 2\r\n\r\nok")

    async def test():
        async with backend(script) as (server, pool):
            answers = [await fetch(pool) for _ in range(6)]
            return [answer.body for answer in answers], len(server.connections)

    assert run(test()) == ([b"ok"] * 6, 1)


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"GZIP", b"identity, gzip"])
def test_answer_in_a_coding_that_nobody_asked_for_is_garbage(run, coding):
    data = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: 2\r\n\r\n\x1f\x8b" % coding

    async def test():
        async with backend(send_once(data, then_close=False)) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.failure, count, answer.calls) == (Failure.GARBAGE, 0, ["failed"])


@pytest.mark.parametrize(
    ("status", "coding"), [(b"200 OK", b"identity"), (b"200 OK", b""), (b"429 Too Many", b"gzip")]
)
def test_status_of_an_error_is_told_in_any_coding(run, status, coding):
    """Of an error answer the status is worth more than its text."""
    data = b"HTTP/1.1 %b\r\ncontent-encoding: %b\r\ncontent-length: 2\r\n\r\n{}" % (status, coding)

    async def test():
        async with backend(send_once(data)) as (_, pool):
            return await fetch(pool)

    answer = run(test())

    assert (answer.status, answer.failure) == (int(status[:3]), None)


def test_trailers_change_nothing(run):
    data = CHUNKED + b"2\r\nok\r\n0\r\ncontent-type: text/evil\r\nretry-after: 9\r\n\r\n"

    async def test():
        async with backend(send_once(data)) as (_, pool):
            return await fetch(pool)

    answer = run(test())

    assert (answer.body, answer.headers, answer.failure) == (b"ok", {b"transfer-encoding": b"chunked"}, None)


@pytest.mark.parametrize(
    "data",
    [
        b"<html>It works</html>",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nok\r\n0\r\n\r\n",
    ],
    ids=lambda data: data[:60].decode("latin-1").strip(),
)
def test_what_is_not_http_is_garbage(run, data):
    async def test():
        async with backend(send_once(data, then_close=False)) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.failure, count) == (Failure.GARBAGE, 0)
    assert "finished" not in answer.calls


@pytest.mark.parametrize(
    "surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond", b"junk", b"\r\n\r\n\x00"]
)
def test_second_answer_reaches_nobody(run, surplus):
    """Neither the caller who asked nor the one who comes next gets bytes that belong to no request."""

    async def script(connection):
        if connection.number == 0:
            await connection.request()
            await connection.send(HEAD + b"ok" + surplus)
            await connection.gone()
        else:
            await echo(connection)

    async def test():
        async with backend(script) as (_, pool):
            first = await fetch(pool)
            await settled()
            return first, await fetch(pool)

    first, second = run(test())

    assert (first.body, first.calls) == (b"ok", ["started", "data", "finished"])
    assert second.body == b"1.1"


def test_backend_that_never_reads_the_request_is_timed_out(run):
    """A request larger than all buffers between us waits to be sent; the time for the first byte runs on."""

    async def script(_):
        await asyncio.sleep(3600)  # the reader takes some 100 kB by itself and then no more

    request = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 20000000\r\n\r\n" + b"x" * 20_000_000

    async def test():
        async with backend(script) as (_, pool):
            answer = send(pool, request)
            await settled()
            pool.sweep()
            for upstream in pool.open_connections:
                upstream.deadline = 0.0
            pool.sweep()
            await answer.end()
            await settled()
            return answer.failure, len(pool.open_connections)

    assert run(test()) == (Failure.TIMEOUT, 0)
