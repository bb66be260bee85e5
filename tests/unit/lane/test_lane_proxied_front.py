"""Connections of declared proxies: each request has a caller of its own."""

import pytest
from front_harness import get, post, settled

from lingpai.lane.doorman import Bounds, Doorman
from lingpai.lane.forwarded import Proxies
from lingpai.lane.front import Front
from lingpai.lane.fronts import CountingFront, front_protocol
from lingpai.lane.proxied_front import ProxiedFront

HERE = Proxies(["127.0.0.1"])
ADA, BOB = "203.0.113.7", "2001:db8::7"


def said(address, *more):
    return b"x-forwarded-for: " + address.encode(), *more


def test_without_declared_proxies_no_connection_looks_for_callers(run, lane):
    """Calls shall not pay for what nobody asked for."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call", b"", *said(ADA)))
            await caller.answer()
            front = running.calls.opened[0].front
            return isinstance(front, ProxiedFront), front.caller_address

    assert run(test()) == (False, "127.0.0.1")


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(calls_per_address=5)])
def test_each_request_has_the_caller_that_its_head_names(run, lane, bounds):
    addresses = [ADA, ADA, ADA, BOB, "", ADA, "nonsense"]

    async def test():
        async with lane(proxies=HERE, bounds=bounds) as running:
            caller = await running.caller()
            for address in addresses:
                await caller.send(post(b"/call", b"x", *(said(address) if address else ())))
                await caller.answer()
                running.calls.opened[-1].caller = running.calls.opened[-1].front.caller_address
            front = running.calls.opened[0].front
            return [call.caller for call in running.calls.opened], front.peer_address

    here = "127.0.0.1"
    assert run(test()) == ([ADA, ADA, ADA, BOB, here, ADA, here], here)


def test_application_is_told_of_caller_and_scheme(run, lane):
    async def test():
        async with lane(proxies=HERE) as running:
            caller = await running.caller()
            headers = b"\r\n".join([*said(ADA, b"x-forwarded-proto: https"), b""])
            await caller.send(get(b"/asgi", headers))
            await caller.answer()
            await caller.send(get(b"/asgi"))
            await caller.answer()
            return [(scope["client"][0], scope["scheme"]) for scope in running.app.scopes]

    assert run(test()) == [(ADA, "https"), ("127.0.0.1", "http")]


def test_request_that_is_not_served_changes_no_caller(run, lane):
    """It comes behind a call that is under way, which is recorded with its own."""

    async def test():
        async with lane(proxies=HERE) as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait", b"", *said(ADA)) + post(b"/call", b"", *said(BOB)))
            call = await running.call()
            await settled()
            seen = call.front.caller_address
            call.answer(b"done")
            return seen, len(running.calls.opened)

    assert run(test()) == (ADA, 1)


def test_administration_socket_is_no_proxy(run, lane):
    async def test():
        async with lane(proxies=HERE) as running:
            caller = await running.local_caller()
            await caller.send(post(b"/call", b"", *said(ADA)))
            await caller.answer()
            return running.calls.opened[0].front.caller_address

    assert run(test()) == ""


def test_proxy_has_no_share_and_its_callers_answer_for_their_offences(run, lane, monkeypatch):
    monkeypatch.setattr("lingpai.lane.doorman.is_shared", lambda address: not address)

    async def test():
        async with lane(proxies=HERE, bounds=Bounds(connections_per_address=1)) as running:
            callers = [await running.caller() for _ in range(4)]
            answers = []
            for caller in callers:
                await caller.send(post(b"/call", b"", *said(ADA)))
                answers.append((await caller.answer())[0])
            front, doorman = running.calls.opened[0].front, running.server.doorman
            front.slow_down()  # one among good calls is none
            before = list(doorman._offences)
            front.slow_down()
            return answers, list(doorman._connections), before, list(doorman._offences)

    assert run(test()) == ([200] * 4, [], [], [ADA])


def test_caller_is_known_before_calls_are_counted():
    both = front_protocol(None, doorman=Doorman(Bounds(calls_per_address=1), HERE))

    assert both.__mro__.index(ProxiedFront) < both.__mro__.index(CountingFront) < both.__mro__.index(Front)
