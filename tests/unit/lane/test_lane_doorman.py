"""The doorman: what happens when there are too many connections, calls or worthless requests."""

import asyncio
import contextlib
import resource
import socket

import pytest
from front_harness import get, post, settled

from lingpai.lane import doorman as doorman_module
from lingpai.lane import front as front_module
from lingpai.lane.doorman import FREE_OFFENCES, Bounds, Doorman, is_shared, network_of
from lingpai.lane.server import most_connections, raise_descriptor_limit

HERE = "203.0.113.7"
ELSEWHERE = "203.0.113.8"


class Guest:
    """A connection that is idle since some time, or busy (None)."""

    def __init__(self, address=HERE, *, idle_since=None, is_local=False):
        self.peer_address, self.is_local, self.has_share = address, is_local, False
        self.idle_since = idle_since
        self.is_closed = False

    def idle_time(self):
        return None if self.is_closed else self.idle_since

    def close_idle(self):
        self.is_closed = True


# -- all connections


def test_without_bounds_everybody_comes_in():
    doorman = Doorman(Bounds())

    assert [doorman.admit(Guest(), [], 100_000, 0.0) for _ in range(5)] == [None] * 5


def test_longest_idle_connection_goes_when_the_house_is_full():
    doorman = Doorman(Bounds(connections=3))
    guests = [Guest(idle_since=20.0), Guest(idle_since=10.0), Guest()]

    refusal = doorman.admit(Guest(ELSEWHERE), guests, 4, 30.0)

    assert refusal is None
    assert [guest.is_closed for guest in guests] == [False, True, False]


def test_newcomer_is_turned_away_when_nobody_is_idle():
    doorman = Doorman(Bounds(connections=2))

    refusal = doorman.admit(Guest(ELSEWHERE), [Guest(), Guest()], 3, 0.0)

    assert refusal is not None
    assert refusal[0] == 503
    assert doorman.turned_away == 1


def test_room_is_made_for_several_newcomers_at_once():
    """Looking at all connections for each newcomer would make a flood of newcomers expensive."""
    doorman = Doorman(Bounds(connections=640))
    guests = [Guest(idle_since=float(number + 1)) for number in range(640)]

    refusals = [doorman.admit(Guest(ELSEWHERE), guests, 641 + number, 1000.0) for number in range(10)]

    assert refusals == [None] * 10
    assert [guest.is_closed for guest in guests].count(True) == 10


def test_busy_house_is_not_searched_for_every_newcomer():
    doorman = Doorman(Bounds(connections=1))
    looks = []

    class Busy(Guest):
        def idle_time(self):
            looks.append(1)

    for number in range(50):
        doorman.admit(Guest(), [Busy()], 2, number / 1000)

    assert len(looks) == 1


def test_administration_socket_is_never_turned_away():
    doorman = Doorman(Bounds(connections=1, connections_per_address=1))

    assert doorman.admit(Guest("", is_local=True), [Guest()], 50, 0.0) is None


# -- an address's share


def test_address_that_has_its_share_is_turned_away_and_others_are_not():
    doorman = Doorman(Bounds(connections_per_address=2))
    guests = [Guest(), Guest()]
    for guest in guests:
        doorman.admit(guest, [], 1, 0.0)

    refused, other = doorman.admit(Guest(), [], 3, 0.0), doorman.admit(Guest(ELSEWHERE), [], 3, 0.0)
    doorman.leave(guests[0])

    assert refused is not None
    assert refused[0] == 429
    assert "share" in refused[1]
    assert other is None
    assert doorman.admit(Guest(), [], 3, 0.0) is None


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_has_no_share(address):
    """A proxy on this machine speaks for everybody who comes through it."""
    doorman = Doorman(Bounds(connections_per_address=1, calls_per_address=1))

    assert [doorman.admit(Guest(address), [], 1, 0.0) for _ in range(3)] == [None] * 3
    assert [doorman.begin_call(address) for _ in range(3)] == [True] * 3
    assert is_shared(address)


def test_counts_are_forgotten_when_they_reach_zero():
    """Addresses come and go; what is counted for them must not stay."""
    doorman = Doorman(Bounds(connections_per_address=9, calls_per_address=9))
    guests = [Guest(f"203.0.113.{number}") for number in range(200)]
    for guest in guests:
        doorman.admit(guest, [], 1, 0.0)
        doorman.begin_call(guest.peer_address)

    for guest in guests:
        doorman.end_call(guest.peer_address)
        doorman.leave(guest)

    assert (doorman._connections, doorman._calls) == ({}, {})


# -- calls of an address


@pytest.fixture
def _callers_from_outside(monkeypatch):
    """Callers on the loopback count like all others."""
    monkeypatch.setattr(doorman_module, "is_shared", lambda address: not address)


@pytest.mark.usefixtures("_callers_from_outside")
def test_address_with_too_many_calls_under_way_is_refused_until_one_ends(run, lane):
    async def test():
        async with lane(bounds=Bounds(calls_per_address=2)) as running:
            callers = [await running.caller() for _ in range(4)]
            for number, caller in enumerate(callers[:2]):
                await caller.send(post(b"/call/wait"))
                await running.call(number)
            await callers[2].send(post())
            refused = await callers[2].answer()
            running.calls.opened[0].answer(b"done")
            await callers[0].answer()
            await callers[3].send(post())
            return refused[0], await callers[3].answer()

    assert run(test()) == (429, (200, b"call:"))


@pytest.mark.usefixtures("_callers_from_outside")
@pytest.mark.parametrize("how", ["answered", "left", "refused", "application", "bad head"])
def test_call_that_is_over_is_not_counted_any_more(run, lane, how):
    async def test():
        async with lane(bounds=Bounds(calls_per_address=1)) as running:
            caller = await running.caller()
            if how == "bad head":
                await caller.send(post(b"/call", host=b"host: a\r\nhost: b\r\n"))
            elif how == "left":
                await caller.send(post(b"/call/wait"))
                await running.call()
                caller.close()
            else:
                path = {"refused": b"/call/refuse", "application": b"/asgi"}.get(how, b"/call")
                await caller.send(post(path))
                await caller.answer()
            await settled()
            return running.server.doorman._calls

    assert run(test()) == {}


@pytest.mark.usefixtures("_callers_from_outside")
def test_call_on_a_kept_connection_is_counted_each_time(run, lane):
    async def test():
        async with lane(bounds=Bounds(calls_per_address=1)) as running:
            caller = await running.caller()
            statuses = []
            for _ in range(5):
                await caller.send(post())
                statuses.append((await caller.answer())[0])
            return statuses, running.server.doorman._calls

    assert run(test()) == ([200] * 5, {})


# -- on real connections


def test_full_server_closes_an_idle_connection_for_a_newcomer(run, lane):
    async def test():
        async with lane(bounds=Bounds(connections=3)) as running:
            callers = []
            for _ in range(3):
                callers.append(await running.caller())
                await callers[-1].send(post())
                await callers[-1].answer()
            for front in running.server.fronts:
                front.watch(asyncio.get_running_loop().time(), 600)
            newcomer = await running.caller()
            await newcomer.send(post())
            answer = await newcomer.answer()
            await settled()
            return answer, len(running.server.fronts)

    assert run(test()) == ((200, b"call:"), 3)


def test_full_and_busy_server_says_so_to_a_newcomer(run, lane):
    async def test():
        async with lane(bounds=Bounds(connections=2)) as running:
            for number in range(2):
                caller = await running.caller()
                await caller.send(post(b"/call/wait"))
                await running.call(number)
            newcomer = await running.caller()
            await newcomer.send(post())
            answer = await newcomer.answer()
            running.calls.opened[0].answer(b"done")
            return (
                answer[0],
                running.calls.refused[0][0],
                len(running.calls.opened),
                list(running.calls.opened[1].told),
            )

    assert run(test()) == (503, 503, 2, ["complete"])


def test_half_sent_head_makes_room_and_a_body_on_its_way_does_not(run, lane):
    async def test():
        async with lane(bounds=Bounds(connections=2)) as running:
            head, body = await running.caller(), await running.caller()
            await head.send(b"POST /call HTTP/1.1\r\nx-slow: ")
            await body.send(post(b"/call", b"1234")[:-2])
            await settled()
            newcomer = await running.caller()
            await newcomer.send(post())
            answer = await newcomer.answer()
            await body.send(b"34")
            return answer, await head.rest(), await body.answer()

    assert run(test()) == ((200, b"call:"), b"", (200, b"call:1234"))


@pytest.mark.usefixtures("_callers_from_outside")
def test_connections_that_are_gone_are_not_counted(run, lane):
    async def test():
        async with lane(bounds=Bounds(connections_per_address=2)) as running:
            statuses = []
            for _ in range(6):
                caller = await running.caller()
                await caller.send(post())
                statuses.append((await caller.answer())[0])
                caller.writer.transport.abort()
                await settled()
            return statuses, running.server.doorman._connections

    assert run(test()) == ([200] * 6, {})


@pytest.mark.usefixtures("_callers_from_outside")
def test_only_some_of_those_turned_away_are_listened_to(run, lane, monkeypatch):
    monkeypatch.setattr(front_module, "MOST_LINGERING", 2)

    async def test():
        async with lane(bounds=Bounds(connections_per_address=1)) as running:
            await running.caller()
            await settled()
            refused = [await running.caller() for _ in range(5)]
            heard = 0
            for caller in refused:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    heard += (await caller.answer())[0] == 429
            await asyncio.sleep(0.4)
            return heard, running.server.doorman.lingering, len(running.server.fronts)

    assert run(test()) == (2, 0, 1)


# -- worthless requests


def test_address_is_forgiven_a_burst_and_then_a_rate():
    doorman = Doorman(Bounds())

    burst = [doorman.forgives(HERE, 100.0) for _ in range(FREE_OFFENCES + 50)]
    later = [doorman.forgives(HERE, 101.0) for _ in range(200)]

    assert burst.count(True) == FREE_OFFENCES
    assert later.count(True) == 100
    assert doorman.forgives(ELSEWHERE, 101.0)


def test_this_machine_is_forgiven_more_but_not_everything():
    """A proxy here may bring many callers; whoever floods us through it must not stop the others."""
    doorman = Doorman(Bounds())

    burst = [doorman.forgives("127.0.0.1", 100.0) for _ in range(FREE_OFFENCES + 50)]
    later = [doorman.forgives("127.0.0.1", 101.0) for _ in range(500)]

    assert (burst.count(True), later.count(True)) == (FREE_OFFENCES, 300)


def test_offences_of_many_addresses_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(doorman_module, "MOST_ADDRESSES", 100)
    doorman = Doorman(Bounds())

    for number in range(1000):
        doorman.forgives(f"2001:db8:0:{number:x}::1", 0.0)

    assert len(doorman._offences) == 100


def test_offender_is_not_listened_to_for_a_while_and_then_is(run, lane):
    async def test():
        async with lane() as running:
            caller, other = await running.caller(), await running.caller()
            await caller.send(post())
            await caller.answer()
            front = running.calls.opened[0].front
            front.peer_address = front.caller_address = (
                HERE  # over this connection others might call, were it this machine
            )
            for _ in range(front_module.FREE_OFFENCES + 1):
                front.slow_down()
            await caller.send(post())
            await other.send(post())
            others = await other.answer()
            opened = len(running.calls.opened)
            return others, opened, await caller.answer()

    assert run(test()) == ((200, b"call:"), 2, (200, b"call:"))


def test_few_offences_change_nothing(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post())
            await caller.answer()
            front = running.calls.opened[0].front
            for _ in range(front_module.FREE_OFFENCES):
                front.slow_down()
            return front.flow.read_paused

    assert run(test()) is False


def test_requests_of_an_offender_that_came_already_are_not_served(run, lane, monkeypatch):
    """One read may hold a thousand requests; the brake must hold for those too."""
    monkeypatch.setattr(front_module, "FREE_OFFENCES", 3)

    async def test():
        async with lane() as running:
            opened = running.calls.open

            def open_worthless(front, *rest):
                call = opened(front, *rest)
                front.slow_down()
                return call

            running.calls.open = open_worthless
            caller = await running.caller()
            await caller.send(post() * 100)
            await settled()
            return len(running.calls.opened)

    assert run(test()) == 4


def test_application_can_name_an_offence(run, lane, monkeypatch):
    monkeypatch.setattr(front_module, "FREE_OFFENCES", 0)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/offence"))
            await caller.answer()
            await settled()
            (front,) = running.server.fronts
            paused = front.flow.read_paused
            await caller.send(get())
            return paused, (await caller.answer())[0], front.flow.read_paused

    assert run(test()) == (True, 200, False)


@pytest.mark.parametrize(
    ("requests", "offences"),
    [
        (get(b"/offence") * 5, 5),
        (get(b"/offence") + get() * 3, 1),
        (get() + get(b"/offence") + get(), 1),
        (get() * 4, 0),
    ],
    ids=["all", "first", "middle", "none"],
)
def test_offences_count_in_whatever_place_of_the_line_they_stand(run, lane, requests, offences):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(requests)
            for _ in range(requests.count(b"GET")):
                await caller.answer()
            await settled()
            (front,) = running.server.fronts
            return front._offences

    assert run(test()) == offences


def test_answers_behind_an_offence_do_not_end_its_pause(run, lane, monkeypatch):
    monkeypatch.setattr(front_module, "FREE_OFFENCES", 0)

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(get(b"/offence") + get() * 2)
            for _ in range(3):
                await caller.answer()
            (front,) = running.server.fronts
            await caller.send(get())
            await settled()
            served = len(running.app.scopes)
            return served, front.flow.read_paused, (await caller.answer())[0], front.flow.read_paused

    assert run(test()) == (3, True, 200, False)


# -- file descriptors


@pytest.mark.parametrize(
    ("wanted", "descriptors", "most"),
    [(16384, 1_048_576, 16384), (16384, 1024, 597), (0, 3128, 2000), (5, 100, 1)],
)
def test_connections_are_bounded_by_the_descriptors(wanted, descriptors, most):
    assert most_connections(wanted, descriptors) == most


def test_descriptor_limit_is_raised_as_far_as_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
    try:
        limit = raise_descriptor_limit()
        after = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert after == (before[1], before[1])
    assert limit == before[1]


def test_running_out_of_descriptors_ends_nothing(run, lane):
    """Newcomers are cut off, calls under way go on, and when there are descriptors again there is a server."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            spare = []
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            unaccepted = [socket.socket() for _ in range(5)]
            try:
                highest = max(each.fileno() for each in unaccepted)
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
                with contextlib.suppress(OSError):
                    while True:
                        spare.append(socket.socket())
                for each in unaccepted:
                    each.setblocking(False)
                    each.connect_ex(("127.0.0.1", running.port))
                await asyncio.sleep(0.1)
                call.answer(b"done")
                answer = await caller.answer()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for each in spare + unaccepted:
                    each.close()
            newcomer = await running.caller()
            await newcomer.send(post())
            return answer, await newcomer.answer()

    assert run(test()) == ((200, b"done"), (200, b"call:"))


def test_connections_inherit_how_vanished_callers_are_noticed(run, lane):
    async def test():
        async with lane() as running:
            await running.caller()
            await settled()
            (front,) = running.server.fronts
            connection = front.transport.get_extra_info("socket")
            return (
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )

    assert run(test()) == (1, 60_000)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::9", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::5", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_bounds_are_kept_for_what_one_customer_has(address, network):
    assert network_of(address) == network


def test_addresses_of_one_ipv6_network_share_their_bounds():
    doorman = Doorman(Bounds(connections_per_address=2, calls_per_address=1))
    guests = [Guest(f"2001:db8:0:1::{number}") for number in range(3)]

    refusals = [doorman.admit(guest, guests, 1, 0.0) for guest in guests]
    calls = [doorman.begin_call(guest.peer_address) for guest in guests[:2]]
    doorman.leave(guests[0])
    doorman.end_call(guests[1].peer_address)

    assert [refusal and refusal[0] for refusal in refusals] == [None, None, 429]
    assert calls == [True, False]
    assert doorman.admit(guests[2], guests, 1, 0.0) is None
    assert doorman.begin_call(guests[2].peer_address)


def test_connection_of_a_proxy_is_not_held_up_for_one_of_its_callers(run, lane):
    """Good calls came over it, so others than the offender wait for their answers there."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post())
            await caller.answer()
            front = running.calls.opened[0].front
            for _ in range(front_module.FREE_OFFENCES * 3):
                front.slow_down()
                front._finished += 1  # the worthless one was answered
            return front._is_held

    assert run(test()) is False


def test_unread_body_of_an_offence_is_not_waited_for(run, lane):
    """Half of a body has come; whoever sent it reads the answer, and then the end."""

    async def test():
        async with lane() as running:
            running.app.reads_bodies = False
            caller = await running.caller()
            await caller.send(b"POST /offence HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\nhalf")
            answer = await caller.answer()
            return answer[0], await caller.rest()

    assert run(test()) == (200, b"")
