"""The front on real sockets: calls and ASGI side by side, one request at a time, leaving, early answers."""

import asyncio
import contextlib

import pytest
from front_harness import get, post, settled

from lingpai.lane import front as front_module

# -- calls and ASGI


def test_post_that_is_claimed_is_a_call(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call?x=1", b"hello", b"X-Odd: A", b"x-odd: B"))
            return await caller.answer(), await running.call(), running.app.scopes

    answer, call, scopes = run(test())

    assert answer == (200, b"call:hello")
    assert call.url == b"/call?x=1"
    assert call.headers[-2:] == [(b"x-odd", b"A"), (b"x-odd", b"B")]
    assert call.fields[b"x-odd"] == b"B"
    assert scopes == []


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (get(b"/call"), b"asgi:GET /call "),
        (post(b"/other", b"hi"), b"asgi:POST /other hi"),
        (post(b"/call", b"hi").replace(b"POST", b"PUT"), b"asgi:PUT /call hi"),
    ],
)
def test_everything_else_is_for_the_application(run, lane, request_, answer):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request_)
            return await caller.answer(), running.app.scopes[0], len(running.calls.opened)

    (status, body), scope, opened = run(test())

    assert (status, body) == (200, answer)
    assert (b"host", b"h") in scope["headers"]
    assert opened <= (request_.startswith(b"POST /call"))


def test_calls_and_application_take_turns_on_one_connection(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            answers = []
            for number in range(3):
                await caller.send(post(b"/call", b"%d" % number))
                answers.append(await caller.answer())
                await caller.send(get(b"/get%d" % number))
                answers.append(await caller.answer())
                await caller.send(post(b"/post", b"%d" % number))
                answers.append(await caller.answer())
            return answers, running.app.scopes

    answers, scopes = run(test())

    assert [body for _, body in answers] == [
        text
        for number in range(3)
        for text in (b"call:%d" % number, b"asgi:GET /get%d " % number, b"asgi:POST /post %d" % number)
    ]
    assert all(scope["headers"].count((b"host", b"h")) == 1 for scope in scopes)


@pytest.mark.parametrize("path", [b"/call", b"/asgi"])
def test_request_may_come_byte_by_byte(run, lane, path):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            request = post(path, b"hello")
            for index in range(len(request)):
                await caller.send(request[index : index + 1])
                await asyncio.sleep(0)
            return await caller.answer()

    assert run(test())[1].endswith(b"hello")


def test_chunked_body_reaches_the_call_without_its_framing(run, lane):
    request = b"POST /call HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-late: 1\r\n\r\n"

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request)
            return await caller.answer(), await running.call()

    answer, call = run(test())

    assert answer == (200, b"call:abcde")
    assert b"x-late" not in dict(call.headers)


def test_caller_is_known_by_address(run, lane):
    async def test():
        async with lane() as running:
            for caller in (await running.caller(), await running.local_caller()):
                await caller.send(post())
                await caller.answer()
            return [(call.front.caller_address, call.front.is_local) for call in running.calls.opened]

    assert run(test()) == [("127.0.0.1", False), ("", True)]


def test_only_the_admin_socket_makes_a_request_local(run, lane):
    async def test():
        async with lane() as running:
            for caller in (await running.caller(), await running.local_caller()):
                await caller.send(get(b"/asgi", b"x-forwarded-for: 10.0.0.1"))
                await caller.answer()
            return running.app.scopes

    remote, local = run(test())

    assert not remote.get("state", {}).get("is_local")
    assert remote["client"][0] == "127.0.0.1"
    assert local["state"]["is_local"]


def test_finish_without_keep_alive_closes(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            call.answer(b"bye", keep_alive=False)
            return await caller.answer(), await caller.rest()

    assert run(test()) == ((200, b"bye"), b"")


def test_http_1_0_is_told_apart(run, lane):
    async def test():
        async with lane() as running:
            for version in (b"1.0", b"1.1"):
                caller = await running.caller()
                await caller.send(post(version=version))
                await caller.answer()
            return [call.front.is_http_1_0() for call in running.calls.opened]

    assert run(test()) == [True, False]


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_wish_for_an_upgrade_is_ignored(run, lane, body):
    """Java's client sends `Upgrade: h2c` with every first request; a server may answer as if it had not."""
    request = post(
        b"/call", body, b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"
    )

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request)
            first = await caller.answer()
            await caller.send(post(b"/call", b"again"))
            return first, await caller.answer()

    assert run(test()) == ((200, b"call:" + body), (200, b"call:again"))


def test_upgrade_whose_body_comes_late_is_a_request_like_any_other(run, lane):
    head = post(b"/call", b"hello", b"connection: Upgrade", b"upgrade: h2c").removesuffix(b"hello")

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(head)
            await settled()
            await caller.send(b"hello")
            return await caller.answer()

    assert run(test()) == (200, b"call:hello")


def test_upgrade_behind_a_wish_to_close_is_answered_and_closed(run, lane):
    """Only the upgrade is ignored, not what else stands in `Connection`."""
    request = get(b"/asgi", b"connection: close, Upgrade", b"upgrade: h2c")

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(request)
            return await caller.answer(), await caller.rest()

    assert run(test()) == ((200, b"asgi:GET /asgi "), b"")


def test_upgrade_in_http_1_0_is_still_http_1_0(run, lane):
    """Its caller cannot read a chunked answer."""
    headers = (b"connection: Upgrade", b"upgrade: h2c")

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"hi", *headers, host=b"", version=b"1.0"))
            return await caller.answer(), [call.front.is_http_1_0() for call in running.calls.opened]

    assert run(test()) == ((200, b"call:hi"), [True])


@pytest.mark.parametrize("target", [b"h:80", b"/x", b"http://h/x", b"h/x:1"])
def test_connect_is_one_request_to_the_application(run, lane, target):
    """The parser stops behind it as it does behind an upgrade, but there is no wish to take away."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"CONNECT " + target + b" HTTP/1.1\r\nhost: h\r\n\r\n")
            status, _ = await caller.answer()
            await settled()
            return status, len(running.app.scopes)

    status, count = run(test())

    assert status in (200, 400, 405, 501)
    assert count <= 1


# -- one request at a time


def test_request_behind_a_call_is_not_served_and_the_connection_closes(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"one") + post(b"/call", b"two") + get())
            call = await running.call()
            await settled()
            call.answer(b"first")
            return (
                await caller.answer(),
                await caller.rest(),
                call,
                len(running.calls.opened),
                running.app.scopes,
            )

    answer, rest, call, opened, scopes = run(test())

    assert (answer, rest) == ((200, b"first"), b"")
    assert (call.body, call.told.count("complete"), opened, scopes) == (b"one", 1, 1, [])


@pytest.mark.parametrize("second", [post(b"/call", b"two"), get(), b"\x00\x01garbage\r\n\r\n", b"P"])
def test_anything_behind_a_call_in_a_later_piece_is_not_served(run, lane, second):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"one"))
            call = await running.call()
            await call.complete.wait()
            await caller.send(second)
            await settled()
            call.answer(b"first")
            return (
                await caller.answer(),
                await caller.rest(),
                len(running.calls.opened),
                running.calls.refused,
            )

    assert run(test()) == ((200, b"first"), b"", 1, [])


def test_call_behind_the_application_is_not_served(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/slow") + post(b"/call", b"two"))
            await settled()
            running.app.go_on.set()
            answer, rest = await caller.answer(), await caller.rest()
            return answer, rest, [call.told for call in running.calls.opened]

    answer, rest, told = run(test())

    assert (answer, rest) == ((200, b"asgi:GET /slow "), b"")
    assert told in ([], [[]])


def test_call_refused_at_its_head_does_not_overtake_the_applications_answer(run, lane):
    """Answers come in the order of the requests, or the caller takes one for the other."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/slow") + post(b"/call/refuse", b"two"))
            await settled()
            running.app.go_on.set()
            return await caller.answer()

    assert run(test()) == (200, b"asgi:GET /slow ")


def test_requests_to_the_application_may_be_pipelined(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/one") + get(b"/two") + post(b"/three", b"3"))
            return [await caller.answer() for _ in range(3)]

    assert [body for _, body in run(test())] == [b"asgi:GET /one ", b"asgi:GET /two ", b"asgi:POST /three 3"]


# -- expect: 100-continue


@pytest.mark.parametrize("path", [b"/call", b"/asgi"])
def test_caller_who_waits_to_be_asked_for_the_body_is_asked(run, lane, path):
    head = post(path, b"hello", b"Expect: 100-Continue").removesuffix(b"hello")

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(head)
            interim = await caller.answer()
            await caller.send(b"hello")
            return interim, await caller.answer()

    interim, (status, body) = run(test())

    assert interim == (100, b"")
    assert (status, body.endswith(b"hello")) == (200, True)


def test_caller_whose_call_is_refused_is_not_asked_for_the_body(run, lane):
    async def test():
        async with lane() as running:
            return await running.ask(
                post(b"/call/refuse", b"hello", b"expect: 100-continue").removesuffix(b"hello")
            )

    assert run(test()) == (413, b"refused", b"")


def test_expectation_of_one_request_is_not_that_of_the_next(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"one", b"expect: 100-continue"))
            answers = [await caller.answer(), await caller.answer()]
            await caller.send(post(b"/call", b"two"))
            return [*answers, await caller.answer()]

    assert run(test()) == [(100, b""), (200, b"call:one"), (200, b"call:two")]


# -- leaving


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_call_hears_once_that_its_caller_left(run, lane, how):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"x"))
            call = await running.call()
            await call.complete.wait()
            if how == "half-close":
                caller.writer.write_eof()
            elif how == "close":
                caller.close()
            else:
                caller.writer.transport.abort()
            await call.left.wait()
            await settled()
            return call.told, running.server.fronts

    assert run(test()) == (["complete", "left"], [])


def test_writing_to_a_caller_who_left_does_nothing(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"x"))
            call = await running.call()
            caller.close()
            await call.left.wait()
            await settled()
            call.front.write(b"too late")

    run(test())


def test_caller_who_leaves_in_the_middle_of_the_body_is_told(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"hello")[:-1])
            call = await running.call()
            caller.close()
            await call.left.wait()
            return call.told

    assert run(test()) == ["left"]


def test_caller_who_leaves_after_the_answer_is_not_told(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post())
            await caller.answer()
            call = await running.call()
            caller.close()
            await settled()
            return call.told

    assert run(test()) == ["complete"]


def test_slow_caller_pauses_the_call_and_resumes_it(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            caller.writer.transport.pause_reading()
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            while "pause" not in call.told:
                call.front.write(b"x" * 100_000)
                await asyncio.sleep(0)
            caller.writer.transport.resume_reading()
            while "resume" not in call.told:
                await caller.reader.read(1_000_000)
            return list(call.told)

    assert run(test()) == ["complete", "pause", "resume"]


# -- answers before the body is read


def test_answer_reaches_a_caller_who_is_still_sending(run, lane):
    """A plain close would make the kernel reset the connection, and with it the answer."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"POST /call/refuse HTTP/1.1\r\nhost: h\r\ncontent-length: 100000000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    await caller.send(b"x" * 65536)
                    await asyncio.sleep(0.001)
            call = await running.call()
            return await caller.answer(), call.told, call.body

    answer, told, body = run(test())

    assert answer == (413, b"refused")
    assert (told.count("complete"), body) == (0, b"")


def test_lingering_ends(run, lane, monkeypatch):
    monkeypatch.setattr(front_module, "LINGER_S", 1.0)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/refuse", b"x" * 10))
            await caller.answer()
            assert running.server.fronts, "it still listens, to discard what comes"
            while running.server.fronts:
                await asyncio.sleep(0.01)

    run(test())


def test_requests_sent_behind_a_call_do_not_destroy_its_answer(run, lane):
    """They are not served, and what still comes of them when the answer is on its way must not reset the connection."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"1") + post(b"/call", b"2" * 100)[:-50])
            call = await running.call()
            call.answer(b"x" * 100_000)
            for _ in range(5):
                await caller.send(b"2" * 10)
                await asyncio.sleep(0.01)
            return await caller.answer(), await caller.rest(), len(running.calls.opened)

    assert run(test()) == ((200, b"x" * 100_000), b"", 1)


# -- faults of ours


@pytest.mark.parametrize("address", [b"/call/broken", b"/call/fault"])
def test_fault_of_ours_is_a_500_and_no_mistake_of_the_caller(run, lane, caplog, address):
    """The parser calls us, so whatever we raise comes back as one of its errors: that is no fault of the caller."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(address, b"hi"))
            status, _ = await caller.answer()
            return status, await caller.rest(), [call.told for call in running.calls.opened]

    status, rest, told = run(test())

    assert (status, rest) == (500, b"")
    if address.endswith(b"fault"):
        assert told == [["complete", "KeyError('a fault of ours')"]]  # which a call logs itself
    else:
        assert "KeyError: 'a fault of ours'" in caplog.text


@pytest.mark.parametrize("target", [b"http://h", b"/\xc3\xa4", b"http:", b"x"])
def test_target_without_a_path_is_refused_as_the_callers_mistake(run, lane, caplog, target):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(b"GET " + target + b" HTTP/1.1\r\nhost: h\r\n\r\n")
            return (await caller.answer())[0]

    assert run(test()) == 400
    assert caplog.records == []
