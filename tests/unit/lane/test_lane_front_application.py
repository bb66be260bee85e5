"""The front and the application: how large its requests may be, and that answers keep their order."""

import pytest
from front_harness import get, post, settled

from lingpai.lane.front import MAX_APP_BODY_BYTES


def test_large_body_for_the_application_is_refused_at_its_head(run, lane):
    async def test():
        async with lane() as running:
            head = b"POST /asgi HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (MAX_APP_BODY_BYTES + 1)
            return await running.ask(head), running.app.scopes

    (status, _, _), scopes = run(test())

    assert (status, scopes) == (413, [])


def test_body_without_a_length_is_refused_when_it_is_too_large(run, lane):
    """The application keeps what it reads in memory, whoever sends it."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"POST /asgi HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(MAX_APP_BODY_BYTES // 65536 + 1):
                await caller.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            return (await caller.answer())[0], await caller.rest(), len(running.server.fronts)

    status, rest, _ = run(test())

    assert (status, rest) == (413, b"")


@pytest.mark.parametrize(
    "rest",
    [
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"transfer-encoding: chunked\r\n\r\n2;a\nb\r\n",
        b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\nfffffffffffffffff\r\n",
        b"transfer-encoding: rot13\r\n\r\n{}",
    ],
    ids=["no size", "LF in an extension", "too large a size behind a good one", "unknown coding"],
)
def test_body_that_is_none_is_refused_while_the_application_waits_for_it(run, lane, rest):
    """At once, and not when time is up: the application never sees the end of such a body."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"POST /asgi HTTP/1.1\r\nhost: h\r\n" + rest)
            return (await caller.answer())[0], await caller.rest()

    assert run(test()) == (400, b"")


def test_body_as_large_as_allowed_reaches_the_application(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/asgi", b"x" * MAX_APP_BODY_BYTES))
            return await caller.answer()

    status, body = run(test())

    assert (status, len(body)) == (200, MAX_APP_BODY_BYTES + len(b"asgi:POST /asgi "))


@pytest.mark.parametrize(
    "second",
    [
        b"GET /asgi HTTP/1.1\r\n\r\n",
        b"POST /asgi HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n",
        b"rubbish\r\n\r\n",
    ],
    ids=["no host", "too large", "rubbish"],
)
def test_refusal_does_not_overtake_the_answer_before_it(run, lane, second):
    """The first answer on a connection is taken for the answer to the first request."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/slow"))
            await settled()
            await caller.send(second)
            await settled()
            running.app.go_on.set()
            return await caller.answer(), await caller.rest()

    assert run(test()) == ((200, b"asgi:GET /slow "), b"")
