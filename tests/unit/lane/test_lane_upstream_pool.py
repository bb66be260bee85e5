"""Connections to backends: opening them, leaving, time-outs by the sweep, back-pressure."""

import asyncio
import socket
import ssl

import pytest
from upstream_harness import (
    REQUEST,
    Recorder,
    SetClock,
    backend,
    echo,
    fetch,
    send,
    send_once,
    settled,
    until,
)

from lingpai.lane.upstream import QUIET_S, Failure
from lingpai.lane.upstream_pool import Origin, Timeouts, UpstreamPool
from tests.fakes.scripted_server import scripted_server

# -- connecting


def test_nobody_listening_is_told(run):
    async def test():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            pool = UpstreamPool(Origin("127.0.0.1", taken.getsockname()[1]), loop=asyncio.get_running_loop())
            return await fetch(pool)

    answer = run(test())

    assert (answer.failure, answer.calls) == (Failure.CONNECT, ["failed"])


def test_missing_unix_socket_is_told(run, tmp_path):
    async def test():
        origin = Origin("", 0, socket_path=str(tmp_path / "none"))
        return await fetch(UpstreamPool(origin, loop=asyncio.get_running_loop()))

    assert run(test()).failure is Failure.CONNECT


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "no such host"])
def test_name_that_is_none_is_told(run, host):
    """The resolver raises UnicodeError for some of these, which is no OSError; the caller must hear of it all the same."""

    async def test():
        return await fetch(UpstreamPool(Origin(host, 80), loop=asyncio.get_running_loop()))

    assert run(test()).failure is Failure.CONNECT


def test_server_that_does_not_accept_is_told_in_time(run):
    async def test():
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            pool = UpstreamPool(
                Origin(*address), loop=asyncio.get_running_loop(), timeouts=Timeouts(connect=0.05)
            )
            answer = await fetch(pool)
            for filler in fillers:
                filler.close()
            return answer

    assert run(test()).failure is Failure.CONNECT_TIMEOUT


def test_backend_that_speaks_no_tls_is_told(run):
    async def script(connection):
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.gone()

    async def test():
        async with scripted_server(script) as server:
            origin = Origin("127.0.0.1", server.port, tls=ssl.create_default_context())
            return await fetch(UpstreamPool(origin, loop=asyncio.get_running_loop()))

    assert run(test()).failure is Failure.CONNECT


def test_connection_whose_caller_left_meanwhile_is_kept_for_others(run):
    async def test():
        async with backend(echo) as (server, pool):
            gone = send(pool)
            gone.is_over = True
            await until(lambda: server.connections)
            await settled()
            answer = await fetch(pool)
            return gone, answer, server

    gone, answer, server = run(test())

    assert gone.calls == []
    assert answer.body == b"0.1"
    assert server.requests == [REQUEST]


# -- leaving and closing


def test_abort_closes_the_connection_so_that_the_backend_can_stop(run):
    seen = asyncio.Event()

    async def script(connection):
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await connection.gone()
        seen.set()

    async def test():
        async with backend(script) as (_, pool):
            answer = send(pool)
            await answer.has_data.wait()
            answer.upstream.abort()
            await seen.wait()
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.calls, answer.upstream, count) == (["started", "data"], None, 0)


def test_aborted_connection_is_not_used_again(run):
    """A late answer to the one who left must not reach the next caller."""

    async def script(connection):
        await connection.request()
        if connection.number == 0:
            await connection.gone()
        await connection.answer(b"for the second")
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            first = send(pool)
            await until(lambda: server.requests)
            first.upstream.abort()
            second = await fetch(pool)
            return first, second

    first, second = run(test())

    assert first.calls == []
    assert second.body == b"for the second"


def test_closing_the_pool_fails_what_is_under_way_on_a_fresh_connection(run):
    async def script(connection):
        await connection.request()
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            answer = send(pool)
            await until(lambda: server.requests)
            await pool.close()
            await answer.end()
            return answer

    assert run(test()).calls == ["failed"]


def test_closing_the_pool_fails_what_is_under_way_on_a_used_connection(run):
    """It is not tried again: the backend is being dropped, and nobody would close the new connection."""

    async def script(connection):
        await connection.request()
        await connection.answer()
        await connection.request()
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            await fetch(pool)
            answer = send(pool)
            await until(lambda: len(server.requests) == 2)
            await pool.close()
            await answer.end()
            await settled()
            return answer, len(server.connections), len(pool.open_connections)

    answer, connected, still_open = run(test())

    assert (answer.calls, connected, still_open) == (["failed"], 1, 0)


def test_closing_the_pool_fails_what_is_still_connecting(run):
    """Whoever waits for a connection gets exactly one end, too."""

    async def test():
        async with backend(echo) as (_, pool):
            answer = send(pool)
            await pool.close()
            async with asyncio.timeout(1):
                await answer.end()
            return answer

    assert run(test()).calls == ["failed"]


# -- another process takes over at the same address


def test_retired_connection_is_not_used_again_idle_or_busy(run):
    """The old process closes what is idle when it ends, perhaps with a request on it that it has not read."""
    may_answer = asyncio.Event()

    async def script(connection):
        await connection.request()
        await connection.answer()
        await connection.request()
        await may_answer.wait()
        await connection.answer(b"from the old one")
        await connection.gone()

    async def test():
        async with backend(script) as (server, pool):
            await asyncio.gather(fetch(pool), fetch(pool))
            busy = send(pool)
            await until(lambda: len(server.requests) == 3)
            pool.retire()
            await fetch(pool)
            may_answer.set()
            await busy.end()
            await settled()
            return busy, len(server.connections), len(pool.open_connections), pool.busy

    busy, connected, still_open, still_busy = run(test())

    assert busy.body == b"from the old one"
    assert (connected, still_open, still_busy) == (3, 1, 0)


def test_connection_that_was_being_opened_when_others_retired_is_used_once(run):
    """It may still have reached the old process."""

    async def test():
        async with backend(echo) as (server, pool):
            opening = send(pool)
            await asyncio.sleep(0)
            pool.retire()
            await opening.end()
            await settled()
            first = len(pool.open_connections)
            await fetch(pool)
            await settled()
            return first, len(pool.open_connections), len(server.connections)

    assert run(test()) == (0, 1, 2)


# -- time-outs (the sweep is called by hand)


def waits_after(*pieces):
    return send_once(*pieces, then_close=False)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "timeouts", "failure"),
    [
        (waits_after(), Timeouts(first_byte=0.01), Failure.TIMEOUT),
        (waits_after(HEAD, b"abc"), Timeouts(idle=0.01), Failure.IDLE),
        (waits_after(HEAD), Timeouts(idle=0.01), Failure.IDLE),
    ],
)
def test_silence_ends_the_exchange_and_the_connection(run, script, timeouts, failure):
    async def test():
        async with backend(script, timeouts=timeouts) as (server, pool):
            answer = send(pool)
            await until(lambda: server.requests)
            await settled()
            pool.sweep()
            assert not answer.has_ended.is_set(), "the first sweep only notes the time"
            await asyncio.sleep(0.02)
            pool.sweep()
            await answer.end()
            await settled()
            return answer, len(pool.open_connections)

    answer, count = run(test())

    assert (answer.failure, answer.calls.count("failed"), count) == (failure, 1, 0)


def test_time_out_gets_no_second_try_even_on_a_used_connection(run):
    async def script(connection):
        await connection.request()
        await connection.answer()
        await connection.request()
        await connection.gone()

    async def test():
        async with backend(script, timeouts=Timeouts(first_byte=0.01)) as (server, pool):
            await fetch(pool)
            answer = send(pool)
            await until(lambda: len(server.requests) == 2)
            pool.sweep()
            await asyncio.sleep(0.02)
            pool.sweep()
            await answer.end()
            await settled()
            return answer, len(server.connections)

    answer, count = run(test())

    assert (answer.failure, answer.retries, count) == (Failure.TIMEOUT, 0, 1)


def drips(go_on, *, count):
    """A script that sends a body of `count` bytes, the next one each time that it is told to go on."""

    async def script(connection):
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % count)
        for _ in range(count):
            await go_on.acquire()
            await connection.send(b"x")
        await connection.gone()

    return script


async def drip(pool, clock, go_on, answer, *, count, every_s):
    """Let `count` bytes come, so far apart, and sweep after each of them and shortly before the next."""
    for number in range(1, count + 1):
        go_on.release()
        await until(lambda number=number: len(answer.body) == number or answer.failure)
        pool.sweep()
        clock.now += every_s
        pool.sweep()


def test_slow_answer_lives_as_long_as_it_moves(run):
    async def test():
        clock, go_on = SetClock(), asyncio.Semaphore(0)
        timeouts = Timeouts(first_byte=30, idle=30)
        async with backend(drips(go_on, count=10), loop=clock, timeouts=timeouts) as (_, pool):
            answer = send(pool)
            await drip(pool, clock, go_on, answer, count=10, every_s=29)
            return answer

    assert run(test()).calls[-1] == "finished"


def test_first_byte_ends_the_wait_for_the_first_byte(run):
    async def test():
        timeouts = Timeouts(first_byte=0.01, idle=60)
        async with backend(waits_after(b"HTTP/1.1 200"), timeouts=timeouts) as (_, pool):
            answer = send(pool)
            await until(lambda: answer.upstream is not None and answer.upstream.has_answered)
            for _ in range(4):
                pool.sweep()
                await asyncio.sleep(0.01)
            return list(answer.calls)

    assert run(test()) == []


def test_idle_connection_is_closed_after_a_while(run):
    async def test():
        async with backend(echo, timeouts=Timeouts(keep_alive=0.01)) as (_, pool):
            await fetch(pool)
            pool.sweep()
            before = len(pool.open_connections)
            await asyncio.sleep(0.02)
            pool.sweep()
            await settled()
            return before, len(pool.open_connections)

    assert run(test()) == (1, 0)


def test_sweep_leaves_good_connections_alone(run):
    async def test():
        async with backend(echo) as (server, pool):
            for _ in range(5):
                await fetch(pool)
                pool.sweep()
            return len(server.connections)

    assert run(test()) == 1


# -- silence that is no time-out yet


def test_silent_answer_is_told_once_for_every_quiet_time(run):
    async def test():
        clock = SetClock()
        async with backend(waits_after(HEAD, b"abc"), loop=clock) as (_, pool):
            answer = send(pool)
            await answer.has_data.wait()
            told = []
            for seconds in (0, QUIET_S - 1, 1, 1, QUIET_S - 2, 1):
                clock.now += seconds
                pool.sweep()
                told.append(answer.calls.count("quiet"))
            return told, list(answer.calls)

    told, calls = run(test())

    assert told == [0, 0, 1, 1, 1, 2]
    assert calls == ["started", "data", "quiet", "quiet"]


def test_answer_that_moves_is_not_quiet(run):
    async def test():
        clock, go_on = SetClock(), asyncio.Semaphore(0)
        async with backend(drips(go_on, count=15), loop=clock) as (_, pool):
            answer = send(pool)
            await drip(pool, clock, go_on, answer, count=15, every_s=QUIET_S - 1)
            return answer.calls

    calls = run(test())

    assert "quiet" not in calls
    assert calls[-1] == "finished"


def test_neither_a_wait_for_the_head_nor_a_pause_is_a_quiet_answer(run):
    async def test():
        clock = SetClock()

        def wait_long(pool):
            pool.sweep()
            for _ in range(3):
                clock.now += QUIET_S
                pool.sweep()

        async with backend(waits_after(), loop=clock) as (server, pool):
            waiting = send(pool)
            await until(lambda: server.requests)
            wait_long(pool)
            calls = list(waiting.calls)
        async with backend(waits_after(HEAD), loop=clock) as (_, pool):
            paused = send(pool)
            await paused.has_started.wait()
            paused.upstream.pause()
            wait_long(pool)
            return calls, list(paused.calls)

    assert run(test()) == ([], ["started"])


# -- back-pressure

PIECE = b"x" * 65536


def pours(megabytes):
    """A script that sends as fast as the other side reads, and counts."""
    sent = [0]

    async def script(connection):
        while True:
            await connection.request()
            count = megabytes * 16
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (count * len(PIECE)))
            for _ in range(count):
                await connection.send(PIECE)
                sent[0] += 1

    return script, sent


async def stalled(sent):
    """Waits until nothing moves any more."""
    before = -1
    while sent[0] != before:
        before = sent[0]
        await asyncio.sleep(0.05)


def test_paused_answer_stops_the_backend_and_goes_on_when_resumed(run):
    script, sent = pours(24)

    async def test():
        async with backend(script) as (_, pool):
            answer = send(pool)
            await answer.has_started.wait()
            answer.upstream.pause()
            await stalled(sent)
            received, poured = len(answer.body), sent[0]
            answer.upstream.resume()
            await answer.end()
            return received, poured, len(answer.body), answer.calls[-1]

    received, poured, total, end = run(test())

    assert received < 4 * 1024 * 1024
    assert poured < 24 * 16
    assert (total, end) == (24 * 1024 * 1024, "finished")


def test_pause_and_resume_may_come_twice(run):
    async def test():
        async with backend(send_once(HEAD, b"x" * 100)) as (_, pool):
            answer = send(pool)
            await answer.has_started.wait()
            for step in ("pause", "pause", "resume", "resume"):
                getattr(answer.upstream, step)()
            return await answer.end()

    assert run(test()).calls[-1] == "finished"


def test_connection_given_back_while_paused_reads_again(run):
    """The caller of the last exchange was slow; the next one must not wait for ever."""

    class Pausing(Recorder):
        def response_data(self, data):
            super().response_data(data)
            self.upstream.pause()

    async def test():
        async with backend(echo) as (server, pool):
            slow = Pausing()
            pool.send(REQUEST, slow)
            await slow.end()
            second = await fetch(pool)
            return slow, second, len(server.connections)

    slow, second, count = run(test())

    assert slow.calls[-1] == "finished"
    assert (second.body, count) == (b"0.2", 1)


def test_paused_exchange_does_not_time_out(run):
    """The silence is ours."""

    async def test():
        async with backend(waits_after(HEAD, b"abc"), timeouts=Timeouts(idle=0.01)) as (_, pool):
            answer = send(pool)
            await answer.has_data.wait()
            answer.upstream.pause()
            for _ in range(4):
                pool.sweep()
                await asyncio.sleep(0.015)
            paused = list(answer.calls)
            answer.upstream.resume()
            pool.sweep()
            just_resumed = list(answer.calls)
            await asyncio.sleep(0.02)
            pool.sweep()
            return paused, just_resumed, answer

    paused, just_resumed, answer = run(test())

    assert paused == just_resumed == ["started", "data"]
    assert answer.failure is Failure.IDLE
