"""Heads that were parsed before: what is told of a message is the same, whether its head is known or not."""

import asyncio

import pytest
from front_harness import get, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upstream_harness import backend, fetch

from lingpai.lane.front import Front
from lingpai.lane.known_head import LESSON_EVERY, MOST_LESSONS_IN_VAIN, KnownHead
from lingpai.lane.upstream import Upstream

HEAD = b"POST /x HTTP/1.1\r\nhost: h\r\nContent-Length: %b\r\nx-y: z\r\n\r\n"


def message(body, length=None):
    return HEAD % (b"%d" % len(body) if length is None else length) + body


@pytest.fixture
def known():
    head = KnownHead()
    assert head.learn(message(b"abc"))
    return head


# -- one head


@pytest.mark.parametrize("body", [b"abc", b"x", b"a" * 12345, b"\r\n\r\n", b"content-length: 5\r\n\r\n"])
def test_body_of_a_message_with_the_same_head_but_for_its_length_is_found(known, body):
    assert known.body_of(message(body)) == body


@pytest.mark.parametrize(
    "other",
    [
        message(b"abc").replace(b"z", b"zz"),
        message(b"abc").replace(b"x-y", b"x-z"),
        message(b"abc").replace(b"POST", b"PUT"),
        message(b"abc").replace(b"Content-Length: ", b"Content-Length:  "),
        message(b"abc")[:-1],
        message(b"abc") + b"d",
        message(b"abc") + message(b"abc"),
        message(b"abc")[1:],
        message(b""),
        message(b"abc", b""),
        message(b"abc", b"+3"),
        message(b"abc", b"-3"),
        message(b"abc", b"3 "),
        message(b"abc", b" 3"),
        message(b"abc", b"0x3"),
        message(b"abc", b"3,3"),
        message(b"abc", b"\xb3"),
        message(b"abc", b"3\r\nContent-Length: 3"),
        message(b"abc", b"3\r\nTransfer-Encoding: chunked"),
        message(b"a" * 10_000_000),
        b"",
        b"\r\n" + message(b"abc"),
    ],
    ids=lambda data: repr(data[:60]) + str(len(data)),
)
def test_everything_else_is_for_the_parser(known, other):
    assert known.body_of(other) == b""


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        message(b"abc")[:-1],
        message(b"abc") + b"GET",
        message(b"abc").replace(b"x-y: z", b"content-length: 3"),
        message(b"abc").replace(b"Content-Length: 3", b"transfer-encoding: chunked"),
        message(b"abc").replace(b"\r\n", b"\n"),
    ],
)
def test_only_one_whole_message_with_one_length_is_learned(odd):
    head = KnownHead()

    assert not head.learn(odd)
    assert head.body_of(odd) == b""


def test_of_heads_that_always_differ_few_are_learned(known):
    learned = [
        known.learn(message(b"abc").replace(b"z", b"%d" % number)) for number in range(4 * LESSON_EVERY)
    ]

    assert sum(learned) == MOST_LESSONS_IN_VAIN - 1 + 4


def test_lessons_go_on_as_long_as_they_are_of_use(known):
    for number in range(3 * MOST_LESSONS_IN_VAIN):
        each = message(b"abc").replace(b"z", b"%d" % number)
        assert known.learn(each)
        assert known.body_of(each) == b"abc"


# -- a connection of a caller

REQUESTS = st.lists(
    st.sampled_from([
        post(b"/call", b"one"),
        post(b"/call", b"three"),
        post(b"/call?x", b"one"),
        post(b"/call", b"one", b"x-more: 1"),
        post(b"/call", b"one", b"X-More: 2", b"x-more: 3"),
        post(b"/call", b"one", b"connection: keep-alive"),
        post(b"/call", b"one", b"expect: 100-continue"),
        post(b"/call", b"one").replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n\r\n", b"\r\nconnection: keep-alive\r\n\r\n"),
        post(b"/call/refuse", b"one"),
        post(b"/call", b""),
        post(b"/other", b"one"),
        get(b"/call"),
        get(b"/else"),
    ]),
    min_size=2,
    max_size=8,
)  # fmt: skip


async def converse(lane, requests):
    """What is told of requests that are sent one after the other, as long as the connection lives."""
    async with lane() as running:
        caller = await running.caller()
        answers = []
        for request in requests:
            try:
                await caller.send(request)
                answers.append(await caller.answer())
                if answers[-1][0] == 100:
                    answers.append(await caller.answer())
            except (ConnectionError, EOFError):
                answers.append("closed")
                break
        calls = [(call.url, call.headers, call.fields, call.body, call.told) for call in running.calls.opened]
        return (
            answers,
            calls,
            [(scope["method"], scope["raw_path"], scope["headers"]) for scope in running.app.scopes],
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_caller_is_understood_the_same_whether_heads_are_known_or_not(run, lane, requests):
    knowing = run(converse(lane, requests))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Front, "_learn", lambda *_: None)
        parsing = run(converse(lane, requests))

    assert knowing == parsing


def test_what_was_known_of_a_call_is_not_true_of_what_comes_after_it(run, lane):
    """A call in two pieces, then something for the application, with as many headers, again and again."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            call, other = post(b"/call", b"one"), post(b"/other", b"one")
            await caller.send(call[:20])
            await asyncio.sleep(0.02)
            await caller.send(call[20:])
            answers = [await caller.answer()]
            for _ in range(3):
                await caller.send(other)
                answers.append(await caller.answer())
            return answers

    assert run(test()) == [(200, b"call:one"), *[(200, b"asgi:POST /other one")] * 3]


def test_what_calls_remember_lasts_as_long_as_the_head_is_the_same(run, lane):
    seen = []

    async def test():
        async with lane() as running:
            opened = running.calls.open

            def remember(front, *told):
                seen.append(front.memo)
                front.memo = len(seen)
                return opened(front, *told)

            running.calls.open = remember
            caller = await running.caller()
            for request in (
                post(b"/call", b"one"),
                post(b"/call", b"three"),
                post(b"/call", b"one", b"authorization: other"),
                post(b"/call", b"one", b"authorization: other"),
                get(b"/else"),
                post(b"/call", b"one", b"authorization: other"),
            ):
                await caller.send(request)
                await caller.answer()

    run(test())

    assert seen == [None, 1, None, 3, None]


def test_heads_are_known_from_the_second_call_on(run, lane, monkeypatch):
    """Else the test before would compare the parser with itself."""
    taken = []
    take = Front._is_taken_as_known
    monkeypatch.setattr(
        Front, "_is_taken_as_known", lambda front, data: taken.append(take(front, data)) or taken[-1]
    )

    answers, _, _ = run(converse(lane, [post(b"/call", body) for body in (b"one", b"three", b"two", b"one")]))

    assert [answer for _, answer in answers] == [b"call:one", b"call:three", b"call:two", b"call:one"]
    assert taken == [True] * 3


# -- a connection to a backend

ANSWERS = st.lists(
    st.sampled_from([
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-type: a/b\r\n\r\none",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: a/b\r\n\r\nthree",
        b"HTTP/1.1 200 OK\r\ncontent-type: c/d\r\ncontent-length: 3\r\n\r\none",
        b"HTTP/1.1 500 No\r\ncontent-length: 3\r\ncontent-type: a/b\r\nretry-after: 5\r\n\r\none",
        b"HTTP/1.1 204 No\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 100 C\r\ncontent-length: 38\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\none",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\noneHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\none",
    ]),
    min_size=2,
    max_size=8,
)  # fmt: skip


async def ask(answers):
    """What is told of answers that come one after the other."""
    left = list(answers)

    async def script(connection):
        while left:
            await connection.request()
            await connection.send(left.pop(0))
        await connection.gone()

    told = []
    async with backend(script, may_retry=False) as (_, pool):
        for _ in answers:
            answer = await fetch(pool)
            told.append((answer.calls, answer.status, answer.headers, answer.body, answer.failure))
        return told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=ANSWERS)
def test_backend_is_understood_the_same_whether_heads_are_known_or_not(run, answers):
    knowing = run(ask(answers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upstream, "_learn", lambda *_: None)
        parsing = run(ask(answers))

    assert knowing == parsing


def test_heads_of_answers_are_known_from_the_second_on(run, monkeypatch):
    taken = []
    take = Upstream._take_known
    monkeypatch.setattr(Upstream, "_take_known", lambda *told: taken.append(told[-1]) or take(*told))
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(each), each)
        for each in (b"one", b"three", b"2")
    ]

    told = run(ask(answers))

    assert taken == [b"three", b"2"]
    assert [headers[b"content-length"] for _, _, headers, _, _ in told] == [b"3", b"5", b"1"]
