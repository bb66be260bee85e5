"""What the front does not put up with: heads that are not proper HTTP or too large, and callers who take too long."""

import asyncio
import contextlib
import os
import socket

import pytest
from front_harness import get, post, settled

from lingpai.lane import front as front_module
from lingpai.lane.front import MAX_PIPELINED, Front
from lingpai.lane.heads import MAX_HEAD_BYTES, MAX_HEADERS
from lingpai.lane.kernel import unacknowledged_bytes

LARGEST_SEGMENT = 65536
"""Of the loopback interface."""

# -- heads


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        post(host=b""),
        post(host=b"host: a\r\nhost: a\r\n"),
        post(host=b"host: a\r\nHost: b\r\n", version=b"1.0"),
        b"POST /call HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /call HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /call HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST /call HTTP/1.1\r\nhost: h\r\ncontent-length : 1\r\n\r\na",
        b"POST /call HTTP/1.1\r\nhost: h\r\nx: a\r\n folded\r\n\r\n",
        b"POST /call HTTP/1.1\nhost: h\n\n",
        b"POST /call HTTP/1.1\r\nhost: h\r\nx: a\x00b\r\n\r\n",
        b"POST /call HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /asgi HTTP/1.1\r\n\r\n",
        b"GET http://h/asgi HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n",
    ],
    ids=lambda data: repr(data[-40:]),
)
def test_what_is_not_proper_http_is_refused_and_nothing_is_served(run, lane, data):
    async def test():
        async with lane() as running:
            answer = await running.ask(data)
            told = [call.told for call in running.calls.opened]
            return answer, told, running.app.scopes, running.calls.refused

    answer, told, scopes, refused = run(test())

    assert answer == (400, b"bad", b"")
    assert (scopes, len(refused)) == ([], 1)
    assert all("complete" not in each for each in told)


def test_http_1_0_needs_no_host(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(host=b"", version=b"1.0", body=b"hi"))
            return await caller.answer()

    assert run(test()) == (200, b"call:hi")


def padded(size, *, count=1):
    return [b"x-%d: %b" % (index, b"a" * (size // count)) for index in range(count)]


@pytest.mark.parametrize("pieces", [1, 50])
@pytest.mark.parametrize(
    "headers", [padded(MAX_HEAD_BYTES), padded(MAX_HEAD_BYTES, count=90), padded(MAX_HEAD_BYTES * 4)]
)
def test_head_that_is_too_large_is_refused_in_one_piece_or_many(run, lane, headers, pieces):
    request = post(b"/call", b"", *headers)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            step = len(request) // pieces + 1
            for start in range(0, len(request), step):
                await caller.send(request[start : start + step])
                await asyncio.sleep(0.001)
            return await caller.answer(), running.calls.opened

    assert run(test()) == ((431, b"bad"), [])


def test_head_without_an_end_is_refused_when_it_is_too_large(run, lane):
    async def test():
        async with lane() as running:
            return await running.ask(b"GET /asgi HTTP/1.1\r\nx: " + b"a" * (MAX_HEAD_BYTES + 1))

    assert run(test())[0] == 431


def test_target_that_is_too_long_is_refused(run, lane):
    async def test():
        async with lane() as running:
            return await running.ask(get(b"/" + b"a" * MAX_HEAD_BYTES))

    assert run(test())[0] == 431


@pytest.mark.parametrize("make", [post, get])
def test_too_many_headers_are_refused_and_the_most_allowed_are_not(run, lane, make):
    own = make().count(b"\r\n") - 2

    def request(count):
        lines = [b"x-%d: a" % index for index in range(count - own)]
        return make(b"/call", b"", *lines) if make is post else make(b"/asgi", *lines)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request(MAX_HEADERS))
            allowed = await caller.answer()
            await caller.send(request(MAX_HEADERS + 1))
            return allowed[0], (await caller.answer())[0]

    assert run(test()) == (200, 431)


@pytest.mark.parametrize("pieces", [1, 20])
def test_large_head_below_the_bound_with_a_large_body_is_served(run, lane, pieces):
    body = b"b" * 300_000
    request = post(b"/call", body, *padded(MAX_HEAD_BYTES - 2000, count=50))

    async def test():
        async with lane() as running:
            caller = await running.caller()
            step = len(request) // pieces + 1
            for start in range(0, len(request), step):
                await caller.send(request[start : start + step])
                await asyncio.sleep(0.001)
            return await caller.answer()

    status, answer = run(test())

    assert (status, len(answer)) == (200, len(body) + 5)


def test_bounds_are_for_each_head_not_for_the_connection(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            statuses = []
            for _ in range(4):
                request = post(b"/call", b"", *padded(MAX_HEAD_BYTES // 2))
                await caller.send(request[:1000])
                await asyncio.sleep(0.005)
                await caller.send(request[1000:])
                statuses.append((await caller.answer())[0])
            return statuses

    assert run(test()) == [200] * 4


def test_trailers_without_end_are_refused(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"POST /call HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
            for index in range(30):
                await caller.send(b"x-%d: " % index + b"a" * 4000 + b"\r\n")
                await asyncio.sleep(0.001)
            return await caller.answer()

    assert run(test())[0] == 431


# -- time


def front_of(running) -> Front:
    (front,) = running.server.fronts
    return front


async def watched(front, *times, idle_s=10.0):
    """Whether the connection is closed after each look at these loop times."""
    seen = []
    for time in times:
        front.watch(time, idle_s)
        await asyncio.sleep(0)
        seen.append(front.transport.is_closing())
    return seen


def test_idle_connection_is_closed_after_its_time(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post())
            await caller.answer()
            return await watched(front_of(running), 100, 109, 110, 110.1), await caller.rest()

    assert run(test()) == ([False, False, False, True], b"")


def test_connection_on_which_nothing_was_ever_sent_is_closed_too(run, lane):
    async def test():
        async with lane() as running:
            await running.caller()
            await settled()
            return await watched(front_of(running), 100, 111)

    assert run(test()) == [False, True]


def test_every_request_starts_the_time_anew(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            seen = []
            for time in (100, 109, 118):
                await caller.send(post())
                await caller.answer()
                seen += await watched(front_of(running), time)
            return seen + await watched(front_of(running), 127, 129)

    assert run(test()) == [False, False, False, False, True]


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n" * 500], ids=["CRLF", "LF", "many"])
@pytest.mark.parametrize("first", [b"", post(), get()], ids=["fresh", "call", "asgi"])
def test_blank_lines_do_not_keep_an_idle_connection_open(run, lane, first, blank):
    """Servers skip blank lines before a request (RFC 9112, section 2.2), but they are none."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            if first:
                await caller.send(first)
                await caller.answer()
            else:
                await settled()
            front = front_of(running)
            seen = []
            for time in (100, 105, 110, 111):
                seen += await watched(front, time)
                await caller.send(blank)
                await asyncio.sleep(0.005)
            return seen

    assert run(test()) == [False, False, False, True]


def test_blank_lines_do_not_save_a_connection_from_making_room(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post())
            await caller.answer()
            front = front_of(running)
            await watched(front, 100)
            await caller.send(b"\r\n")
            await settled()
            return front.idle_time()

    assert run(test()) == 100


@pytest.mark.parametrize("path", [b"/call", b"/asgi"])
def test_time_that_a_body_takes_is_not_idle_time(run, lane, path):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(path, b"x" * 100_000)[:-100_000])
            seen = []
            for time in (100, 106, 112, 118, 124):
                await caller.send(b"x" * 20_000)
                await settled()
                seen += await watched(front_of(running), time)
            await caller.answer()
            return seen + await watched(front_of(running), 130, 134.1)

    assert run(test()) == [False] * 6 + [True]


@pytest.mark.parametrize("request_", [post(b"/call/wait"), get(b"/slow")])
def test_busy_connection_is_not_idle(run, lane, request_):
    """A model may think for many minutes."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request_)
            await settled()
            return await watched(front_of(running), 100, 1000, 10_000)

    assert run(test()) == [False] * 3


def test_head_that_dawdles_is_closed_however_busily_it_is_sent(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"POST /call HTTP/1.1\r\n")
            seen = []
            for time in range(100, 130, 3):
                await caller.send(b"x-%d: a\r\n" % time)
                await asyncio.sleep(0.005)
                seen += await watched(front_of(running), time, idle_s=600)
                if seen[-1]:
                    break
            return seen

    assert run(test()) == [False] * 4 + [True]


def test_body_that_stands_still_is_closed_and_one_that_moves_is_not(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"x" * 100_000)[:-100_000])
            seen = []
            for time in (100, 125, 150):
                await caller.send(b"x" * 20_000)
                await settled()
                seen += await watched(front_of(running), time, idle_s=600)
            return seen, await watched(front_of(running), 175, 181, idle_s=600)

    assert run(test()) == ([False] * 3, [False, True])


def test_body_that_brings_a_byte_now_and_then_is_closed(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"x" * 10)[:-10])
            seen = []
            for time in (100, 110, 120, 130, 130.1):
                await caller.send(b"x")
                await settled()
                seen += await watched(front_of(running), time, idle_s=600)
            return seen

    assert run(test()) == [False] * 4 + [True]


def test_body_that_waits_for_us_is_not_late(run, lane):
    """The application has not read the first part yet, so we do not read the next."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/asgi", b"x" * 100)[:-100])
            await settled()
            front = front_of(running)
            front.flow.pause_reading()
            return await watched(front, 100, 140, 180, idle_s=600)

    assert run(test()) == [False] * 3


# -- callers who do not read


@pytest.fixture
def noting_buffers(monkeypatch):
    """The most bytes that ever waited to be sent on a connection."""
    most = [0]
    original = Front.data_received

    def data_received(self, data):
        original(self, data)
        most[0] = max(most[0], self.transport.get_write_buffer_size())

    monkeypatch.setattr(Front, "data_received", data_received)
    return most


async def pour(caller, data):
    """Sends as much as the other side takes, and reads nothing."""
    caller.writer.transport.pause_reading()
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(1):
            await caller.send(data)


@pytest.mark.parametrize("request_", [post(b"/call/long"), get(b"/asgi")], ids=["call", "asgi"])
def test_caller_who_pipelines_without_reading_cannot_fill_the_memory(run, lane, noting_buffers, request_):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await pour(caller, request_ * (5_000_000 // len(request_)))
            await settled()
            waiting = [len(front.pipeline) for front in running.server.fronts]
            return len(running.calls.opened) + len(running.app.scopes), waiting

    served, waiting = run(test())

    assert noting_buffers[0] < 1_000_000
    assert sum(waiting) <= MAX_PIPELINED
    assert served < 5_000_000 // len(request_) // 2


def test_answers_before_the_one_that_was_too_many_arrive(run, lane, monkeypatch):
    """Whoever reads after all gets whole answers, and then the end of the connection."""
    monkeypatch.setattr(front_module, "LINGER_S", 3.0)
    request = post(b"/call", b"x" * 5000)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await pour(caller, request * 3000)
            caller.writer.transport.resume_reading()
            return len(running.calls.opened), await caller.rest()

    count, rest = run(test())

    assert 0 < count < 3000
    assert rest == b"HTTP/1.1 200 OK\r\ncontent-length: 5005\r\n\r\ncall:%b" % (b"x" * 5000) * count


@pytest.mark.parametrize(
    "request_", [post(b"/call", b"x" * 1_000_000), post(b"/asgi", b"x" * 1_000_000)], ids=["call", "asgi"]
)
def test_caller_who_reads_large_answers_is_served_on_and_on(run, lane, request_):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            lengths = []
            for _ in range(6):
                await caller.send(request_)
                lengths.append(len((await caller.answer())[1]) // 1_000_000)
            return lengths, len(running.server.fronts)

    assert run(test()) == ([1] * 6, 1)


def test_no_more_requests_to_the_application_wait_than_allowed_and_those_are_answered(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/slow") + get() * 100)
            await settled()
            running.app.go_on.set()
            return await caller.rest()

    assert run(test()).count(b"HTTP/1.1 200 OK") == 1 + MAX_PIPELINED


async def blocked(running, *, closing):
    """The front of a call whose caller does not read."""
    caller = await running.caller()
    caller.writer.transport.pause_reading()
    # A larger buffer is opened again only when much of it is free.
    caller.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * LARGEST_SEGMENT
    )
    await caller.send(post(b"/call/wait"))
    call = await running.call()
    await call.complete.wait()
    while not call.front.flow.write_paused or call.front.transport.get_write_buffer_size() < 1_000_000:
        call.front.write(b"x" * 1_000_000)
        await asyncio.sleep(0.001)
    if closing:
        call.answer(b"", keep_alive=False)
    await all_is_full(call.front.transport)
    return caller, call


async def all_is_full(transport):
    """Returns when the kernels have moved what they can: TCP tries a full window again after a while."""
    before, since = 0, 0
    while since < 6:
        await asyncio.sleep(0.05)
        left = unacknowledged_bytes(transport)
        before, since = left, since + 1 if left == before else 0


@pytest.mark.parametrize("closing", [False, True])
def test_caller_who_stopped_reading_is_dropped(run, lane, monkeypatch, closing):
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 5.0)

    async def test():
        async with lane() as running:
            _, call = await blocked(running, closing=closing)
            counts = []
            for time in (100, 103, 105, 105.1):
                for front in running.server.fronts:
                    front.watch(time, 600)
                await settled()
                counts.append(len(running.server.fronts))
            return counts, "left" in call.told

    assert run(test()) == ([1, 1, 1, 0], not closing)


def test_caller_who_reads_a_few_bytes_now_and_then_is_dropped(run, lane, monkeypatch):
    """A reader of some bytes a second would keep an answer in memory for days."""
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 5.0)

    async def test():
        async with lane() as running:
            _, call = await blocked(running, closing=False)
            front = call.front
            size = front.transport.get_write_buffer_size()
            counts = []
            for number, time in enumerate((100, 102, 104, 105.1)):
                monkeypatch.setattr(type(front), "_untaken", lambda _, left=size - 1000 * number: left)
                for each in running.server.fronts:
                    each.watch(time, 600)
                await settled()
                counts.append(len(running.server.fronts))
            return counts

    assert run(test()) == [1, 1, 1, 0]


def test_caller_who_reads_slowly_is_not_dropped(run, lane, monkeypatch):
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 5.0)

    async def test():
        async with lane() as running:
            caller, call = await blocked(running, closing=False)
            caller.writer.transport.resume_reading()  # the stream reader pauses by itself from here on
            call.front.write(b"x" * 60_000_000)  # more than is read below and kernels hold
            front = call.front
            seen = []
            for time in (100, 104, 108, 112):
                seen += await watched(front, time)
                await caller.reader.readexactly(4_000_000)
                await settled()
            return seen, front.flow.write_paused

    assert run(test()) == ([False] * 4, True)


def test_what_a_caller_takes_from_the_kernel_counts_as_read(run, lane, monkeypatch):
    """The kernel has megabytes to hand out before it takes any more from us."""
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 5.0)

    async def test():
        async with lane() as running:
            caller, call = await blocked(running, closing=False)
            connection = caller.writer.get_extra_info("socket")
            unsent, seen = call.front.transport.get_write_buffer_size(), []
            for time in (100, 104, 108, 112):
                seen += await watched(call.front, time)
                taken = 0
                while taken < 2 * LARGEST_SEGMENT:  # of less the kernel does not tell the other side
                    with contextlib.suppress(BlockingIOError):
                        taken += len(os.read(connection.fileno(), 10_000))
                await all_is_full(call.front.transport)
            return seen, call.front.transport.get_write_buffer_size() == unsent

    assert run(test()) == ([False] * 4, True)


def test_caller_who_keeps_up_with_an_endless_answer_is_not_dropped(run, lane, monkeypatch):
    """As much is written as is taken, so as much waits at each look."""
    monkeypatch.setattr(front_module, "WRITE_TIMEOUT_S", 5.0)

    async def test():
        async with lane() as running:
            caller, call = await blocked(running, closing=False)
            front = call.front

            async def write_on():
                while True:
                    while not front.flow.write_paused and not front.transport.is_closing():
                        front.write(b"x" * 10_000)
                    await asyncio.sleep(0.001)

            writing = asyncio.create_task(write_on())
            caller.writer.transport.resume_reading()  # the stream reader pauses by itself from here on
            seen = []
            for time in (100, 104, 108, 112):
                seen += await watched(front, time)
                await caller.reader.readexactly(5_000_000)
                await settled()
            writing.cancel()
            return seen, front.flow.write_paused

    assert run(test()) == ([False] * 4, True)
