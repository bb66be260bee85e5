"""Exchanges with backends on real sockets: good ones, reuse, the one retry, and every way an answer can end."""

import asyncio

import pytest
from upstream_harness import REQUEST, Recorder, backend, echo, fetch, send, send_once, settled, until

from lingpai.lane.upstream import Failure
from lingpai.lane.upstream_pool import Origin, UpstreamPool

# -- a good exchange


def test_answer_is_told_in_order(run):
    async def test():
        async with backend(echo) as (server, pool):
            answer = await fetch(pool)
            return server, answer

    server, answer = run(test())

    assert server.requests == [REQUEST]
    assert answer.calls == ["started", "data", "finished"]
    assert (answer.status, answer.body) == (200, b"0.1")
    assert answer.upstream is None


def test_unix_socket_is_reached_the_same_way(run, tmp_path):
    async def test():
        async with backend(echo, socket_path=tmp_path / "s") as (_, pool):
            return await fetch(pool)

    assert run(test()).body == b"0.1"


def test_only_headers_of_use_are_told_in_lower_case(run):
    async def script(connection):
        await connection.request()
        await connection.answer(
            b"", b"Content-Type: text/plain", b"RETRY-AFTER: 5", b"Set-Cookie: a=b", b"Server: x"
        )

    async def test():
        async with backend(script) as (_, pool):
            return await fetch(pool)

    assert run(test()).headers == {
        b"content-type": b"text/plain",
        b"retry-after": b"5",
        b"content-length": b"0",
    }


def test_chunked_answer_is_told_without_its_framing(run):
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    async def test():
        async with backend(send_once(head, b"3\r\nabc\r\n2;x=y\r\nde\r\n", b"0\r\nx-trailer: 1\r\n\r\n")) as (
            _,
            pool,
        ):
            return await fetch(pool)

    answer = run(test())

    assert answer.body == b"abcde"
    assert answer.calls[-1] == "finished"


def test_head_that_comes_byte_by_byte_is_a_head(run):
    async def test():
        answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok"
        async with backend(send_once(*[answer[i : i + 1] for i in range(len(answer))])) as (_, pool):
            return await fetch(pool)

    answer = run(test())

    assert (answer.status, answer.body) == (201, b"ok")


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_not_the_answer(run, status):
    interim = b"HTTP/1.1 " + status + b"\r\nlink: </x>\r\ncontent-type: interim\r\n\r\n"

    async def script(connection):
        while True:
            await connection.request()
            await connection.send(interim * 2)
            await connection.answer()

    async def test():
        async with backend(script) as (server, pool):
            return await fetch(pool), await fetch(pool), server

    first, second, server = run(test())

    assert first.calls == second.calls == ["started", "data", "finished"]
    assert first.status == 200
    assert b"content-type" not in first.headers
    assert len(server.connections) == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answer_that_has_no_body_by_its_status_ends_with_its_head(run, status):
    async def test():
        async with backend(send_once(b"HTTP/1.1 " + status + b"\r\n\r\n", then_close=False)) as (_, pool):
            return await fetch(pool)

    assert run(test()).calls == ["started", "finished"]


# -- reuse


def test_connection_is_used_again(run):
    async def test():
        async with backend(echo) as (server, pool):
            bodies = [(await fetch(pool)).body for _ in range(5)]
            return bodies, len(server.connections)

    assert run(test()) == ([b"0.1", b"0.2", b"0.3", b"0.4", b"0.5"], 1)


def test_exchanges_at_the_same_time_have_a_connection_each(run):
    async def test():
        async with backend(echo) as (server, pool):
            answers = await asyncio.gather(*(fetch(pool) for _ in range(10)))
            return {answer.body for answer in answers}, len(server.connections)

    bodies, count = run(test())

    assert count == 10
    assert bodies == {b"%d.1" % number for number in range(10)}


def test_most_recently_used_connection_comes_first(run):
    async def test():
        async with backend(echo) as (_, pool):
            await asyncio.gather(fetch(pool), fetch(pool))
            return {(await fetch(pool)).body.partition(b".")[0] for _ in range(4)}

    assert len(run(test())) == 1


def test_no_more_idle_connections_are_kept_than_allowed(run):
    async def test():
        async with backend(echo, max_idle=2) as (_, pool):
            await asyncio.gather(*(fetch(pool) for _ in range(6)))
            await settled()
            return len(pool.open_connections)

    assert run(test()) == 2


def test_connection_that_says_close_is_not_used_again(run):
    async def script(connection):
        await connection.request()
        await connection.answer(b"x", b"connection: close")
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            answers = [await fetch(pool), await fetch(pool)]
            return (
                [answer.calls[-1] for answer in answers],
                [answer.retries for answer in answers],
                len(server.connections),
            )

    assert run(test()) == (["finished", "finished"], [0, 0], 2)


@pytest.mark.parametrize(
    "surplus",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret",
        b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\nsecret",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"H",
        b"garbage",
        b"\x00",
    ],
)
@pytest.mark.parametrize("is_same_piece", [True, False])
def test_bytes_behind_an_answer_never_reach_the_next_caller(run, surplus, is_same_piece):
    """What nobody asked for could be taken for the answer of whoever asks next: the connection is dropped."""

    async def script(connection):
        await connection.request()
        if connection.number == 0:
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
            await connection.send(answer + surplus if is_same_piece else answer)
            if not is_same_piece:
                await asyncio.sleep(0.005)
                await connection.send(surplus)
            await connection.request()
            await connection.send(b"\r\nngth: 6\r\n\r\nsecret")
        await connection.answer(b"second")
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            first = await fetch(pool)
            await settled()
            second = await fetch(pool)
            return first, second, len(server.connections)

    first, second, count = run(test())

    assert (first.body, first.calls[-1]) == (b"first", "finished")
    assert (second.status, second.body, second.retries) == (200, b"second", 0)
    assert count == 2


# -- retry


def closes_after_first(how):
    """A script whose first connection answers once and is dead by the second request; others answer."""

    async def script(connection):
        await connection.request()
        await connection.answer(b"first" if connection.number == 0 else b"again")
        await connection.request()
        if connection.number == 0:
            await how(connection)
        else:
            await connection.answer(b"again")
            await connection.gone()

    return script


async def close(connection):
    connection.close()
    await connection.gone()


async def reset(connection):
    connection.reset()


@pytest.mark.parametrize("how", [close, reset])
def test_dead_pooled_connection_gets_one_more_try(run, how):
    async def test():
        async with backend(closes_after_first(how)) as (server, pool):
            await fetch(pool)
            second = await fetch(pool)
            return second, len(server.connections), server.requests

    second, count, requests = run(test())

    assert (second.body, second.retries, second.calls) == (b"again", 1, ["started", "data", "finished"])
    assert count == 2
    assert requests == [REQUEST] * 3


def test_second_try_is_the_last(run):
    """A backend that closes on every request gets each call twice at most."""

    async def script(connection):
        await connection.request()
        if connection.number == 0:
            await connection.answer()
            await connection.request()

    async def test():
        async with backend(script) as (server, pool):
            await fetch(pool)
            second = await fetch(pool)
            return second, len(server.requests)

    second, count = run(test())

    assert (second.failure, second.retries, second.calls) == (Failure.CLOSED, 1, ["failed"])
    assert count == 3


def test_fresh_connection_gets_no_second_try(run):
    """It is not stale: the backend has seen the request and may have acted on it."""

    async def script(connection):
        await connection.request()

    async def test():
        async with backend(script) as (server, pool):
            return await fetch(pool), len(server.requests)

    answer, count = run(test())

    assert (answer.failure, answer.retries, count) == (Failure.CLOSED, 0, 1)


def test_backend_that_dies_at_work_is_not_asked_again(run):
    """The connection was alive when the request was sent: what has been done since must not be done twice."""

    async def test():
        dies = asyncio.Event()

        async def how(connection):
            await dies.wait()
            connection.close()

        async with backend(closes_after_first(how)) as (server, pool):
            await fetch(pool)
            answer = send(pool)
            await until(lambda: len(server.requests) == 2)
            pool.sweep()
            dies.set()
            return await answer.end(), len(server.requests)

    answer, count = run(test())

    assert (answer.failure, answer.retries, count) == (Failure.CLOSED, 0, 2)


def test_pool_that_may_not_retry_never_does(run):
    async def test():
        async with backend(closes_after_first(close), may_retry=False) as (server, pool):
            await fetch(pool)
            return await fetch(pool), len(server.requests)

    answer, count = run(test())

    assert (answer.failure, answer.retries, count) == (Failure.CLOSED, 0, 2)


@pytest.mark.parametrize(
    "seen",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
    ],
)
def test_no_second_try_once_a_byte_of_the_answer_was_seen(run, seen):
    async def how(connection):
        await connection.send(seen)
        await asyncio.sleep(0.01)
        connection.close()

    async def test():
        async with backend(closes_after_first(how)) as (server, pool):
            await fetch(pool)
            return await fetch(pool), len(server.requests)

    answer, count = run(test())

    assert (answer.failure, answer.retries, count) == (Failure.CLOSED, 0, 2)
    assert answer.calls[-1] == "failed"


def test_connection_that_closed_while_idle_is_not_tried_at_all(run):
    async def script(connection):
        await connection.request()
        await connection.answer()

    async def test():
        async with backend(script) as (server, pool):
            await fetch(pool)
            await until(lambda: not pool.open_connections)
            second = await fetch(pool)
            return second, len(server.requests)

    second, count = run(test())

    assert (second.status, second.retries, count) == (200, 0, 2)


# -- ends


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_answer_without_a_length_ends_with_the_connection(run, version):
    async def test():
        async with backend(send_once(b"HTTP/" + version + b" 200 OK\r\n\r\n", b"abc", b"def")) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.body, answer.calls[-1], count) == (b"abcdef", "finished", 0)


def test_answer_without_a_length_is_not_complete_when_the_connection_breaks(run):
    async def script(connection):
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await asyncio.sleep(0.01)
        connection.reset()

    async def test():
        async with backend(script) as (_, pool):
            return await fetch(pool)

    assert run(test()).failure is Failure.CLOSED


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"],
        [b"HTTP/1.1 200 OK\r\ncontent-"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [],
    ],
)
def test_answer_cut_short_is_a_failure_never_a_short_answer(run, pieces):
    async def test():
        async with backend(send_once(*pieces)) as (_, pool):
            return await fetch(pool)

    answer = run(test())

    assert answer.failure is Failure.CLOSED
    assert answer.calls.count("failed") == 1
    assert "finished" not in answer.calls


def test_more_bytes_than_announced_are_not_part_of_the_answer(run):
    async def test():
        async with backend(send_once(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef")) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.body, answer.calls, count) == (b"abc", ["started", "data", "finished"], 0)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
    ids=lambda data: data[:40].decode("latin-1").strip(),
)
def test_garbage_fails_once_and_closes(run, data):
    async def test():
        async with backend(send_once(data, then_close=False)) as (_, pool):
            answer = await fetch(pool)
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.failure, count) == (Failure.GARBAGE, 0)
    assert answer.calls.count("failed") == 1
    assert "finished" not in answer.calls


# -- receivers that raise

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (LENGTH, "started"),
        (LENGTH, "data"),
        (LENGTH, "finished"),
        (UNTIL_CLOSE, "finished"),
        (b"no HTTP at all\r\n\r\n", "failed"),
        (LENGTH[:-1], "failed"),
    ],
)
def test_what_a_receiver_raises_comes_back_to_it_and_is_the_end(run, answer, step):
    """Whoever waits would wait for ever: nobody else knows of the exchange any more."""

    async def test():
        async with backend(send_once(answer)) as (_, pool):
            recorder = Recorder()
            recorder.raises_at = step
            pool.send(REQUEST, recorder)
            await recorder.end()
            await settled()
            return recorder, pool.busy

    recorder, busy = run(test())

    assert recorder.calls[-2:] == [step, "broken"]
    assert repr(recorder.error) == f"KeyError('{step}')"
    assert (recorder.upstream, busy) == (None, 0)


def test_what_a_receiver_raises_when_there_is_no_connection_comes_back_to_it(run, tmp_path):
    async def test():
        origin = Origin("", 0, socket_path=str(tmp_path / "nobody"))
        pool = UpstreamPool(origin, loop=asyncio.get_running_loop())
        recorder = Recorder()
        recorder.raises_at = "failed"
        pool.send(REQUEST, recorder)
        return await recorder.end()

    assert run(test()).calls == ["failed", "broken"]
