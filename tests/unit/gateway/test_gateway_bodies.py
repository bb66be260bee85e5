"""The memory that bodies take is bounded: for all calls together, and for those of one key."""

import asyncio
import gc
import json

import pytest
from gateway_fakes import GOOD, FakeFront, model, principal
from gateway_limits import limit, turn

LARGE = 50_000
SIZES = {"max_held_bytes": 250_000, "max_held_bytes_per_key": 120_000}


@pytest.fixture
def bounded(make_stage):
    stage = make_stage(**SIZES)
    stage.serve(model(), model("acme/painter", "text-to-image"))
    for name in ("a", "b", "c"):
        stage.allow(principal(key_id=name), meters=(stage.meter,), key=name.encode())
    return stage


def announce(stage, key=b"a", size=LARGE, front=None):
    """A call whose head says how large its body will be."""
    front = front or FakeFront()
    length = [(b"content-length", b"%d" % size)] if size else [(b"transfer-encoding", b"chunked")]
    return stage.open(front=front, key=key, headers=length), front


def large_chat(size=LARGE):
    body = {"model": "acme/chat", "messages": [{"role": "user", "content": "x" * size}]}
    return json.dumps(body).encode()


def test_key_with_its_share_under_way_is_refused_before_its_body_is_read(bounded, error_of):
    calls = [announce(bounded) for _ in range(2)]
    _, front = announce(bounded)

    assert [front.sent for _, front in calls] == [b"", b""]
    assert front.head["status"] == "503 Service Unavailable"
    assert front.head["retry-after"] == "1"
    assert error_of(front)["code"] == "server_busy"
    assert "max_held_bytes_per_key" in error_of(front)["message"]
    assert front.ended == ["linger"]
    assert bounded.gateway.bodies.held == 2 * LARGE


def test_share_of_one_key_is_not_taken_from_another(bounded):
    calls = [announce(bounded, key) for key in (b"a", b"a", b"b", b"b")]

    assert [front.sent for _, front in calls] == [b""] * 4


def test_all_keys_together_are_bounded(bounded, error_of):
    calls = [announce(bounded, key) for key in (b"a", b"a", b"b", b"b", b"c")]
    _, front = announce(bounded, b"c")

    assert len(calls) == 5
    assert error_of(front)["code"] == "server_busy"
    assert "`gateway.max_held_bytes`" in error_of(front)["message"]


def test_body_is_held_until_its_call_is_over(bounded, answer):
    call, front = announce(bounded, size=len(large_chat()))
    call.body_part(large_chat())
    call.body_complete()
    assert bounded.gateway.bodies.held == len(large_chat())

    answer(call, GOOD)
    del call

    assert front.head["status"] == "200 OK"
    assert (bounded.gateway.bodies.held, bounded.gateway.bodies._by_key) == (0, {})


def test_caller_who_leaves_holds_nothing(bounded):
    call, front = announce(bounded)
    call.body_part(b"half of it")

    front.call = None
    call.caller_left()
    del call

    assert bounded.gateway.bodies.held == 0


def test_body_without_a_length_is_counted_as_it_comes(bounded, error_of):
    call, front = announce(bounded, size=0)
    for _ in range(12):
        call.body_part(b"x" * 5000)
    counted = bounded.gateway.bodies.held
    announce(bounded, b"a", size=20_000)

    assert 60_000 <= counted <= 120_000
    for _ in range(20):
        call.body_part(b"x" * 5000)

    assert error_of(front)["code"] == "server_busy"
    assert front.ended == ["linger"]


def test_small_bodies_are_not_counted(bounded):
    call = bounded.call(key=b"a")

    assert (call.held, bounded.gateway.bodies.held) == (None, 0)


def test_one_body_is_always_held(make_stage):
    """Else bounds below the size of a body would refuse such calls for ever."""
    stage = make_stage(max_held_bytes=1, max_held_bytes_per_key=1)

    first, second = (announce(stage, b"sk-lp-known") for _ in range(2))  # kept: who is gone holds nothing

    assert first[1].sent == b""
    assert second[1].sent != b""


def test_bounds_change_while_running(bounded):
    announced = announce(bounded)
    bounded.gateway.reconfigure(bounded.gateway.settings.__class__(max_held_bytes=60_000))

    assert announced[1].sent == b""
    assert announce(bounded, b"b")[1].head["status"] == "503 Service Unavailable"


def test_largest_body_is_bounded_as_before(make_stage, error_of):
    stage = make_stage(max_body_bytes=100)
    call = stage.open(key=b"sk-lp-known", front=(front := FakeFront()))

    call.body_part(b"x" * 101)

    assert error_of(front)["code"] == "request_too_large"


def test_body_that_needs_no_counting_is_let_go_when_it_is_sent(bounded):
    body = json.dumps({"model": "acme/painter", "prompt": "x" * LARGE}).encode()
    front = FakeFront()
    headers = [(b"content-length", b"%d" % len(body))]
    call = bounded.open(b"/v1/images/generations", front=front, key=b"a", headers=headers)
    call.body_part(body)
    call.body_complete()

    assert len(bounded.link.sent) == 1, front.sent
    assert (call.body, call.request_body) == (b"", b"")


def test_request_that_waited_is_not_kept_once_it_is_sent(limited, answer):
    limit(limited, "1 concurrent wait 30s")
    first = limited.call()
    body = large_chat()
    front = FakeFront()
    second = limited.open(front=front, headers=[(b"content-length", b"%d" % len(body))])
    second.body_part(body)
    second.body_complete()
    assert second.request_body

    answer(first, GOOD)
    turn(limited)

    assert len(limited.link.sent) == 2
    assert second.request_body == b""


def test_unknown_key_is_refused_while_its_body_is_still_coming(bounded, error_of):
    """The look-up takes a moment, and a body of 30 MB much longer: nobody waits for that."""

    async def test():
        call, front = announce(bounded, b"sk-lp-unknown")
        call.body_part(b"half of it")
        assert front.sent == b""
        async with asyncio.timeout(10):
            while not front.sent:
                await asyncio.sleep(0.002)
        return front

    front = bounded.gateway.loop.run_until_complete(test())

    assert error_of(front)["code"] == "invalid_api_key"
    assert front.ended == ["linger"]
    assert front.told_to_slow_down


def test_answers_count_as_they_grow_and_give_their_room_back(make_stage):
    stage = make_stage(max_held_bytes=1_000_000, max_held_bytes_per_key=300_000)
    stage.serve(model())
    fronts = [FakeFront(), FakeFront()]
    calls = [stage.call(front=front) for front in fronts]

    for call in calls:
        call.response_started(200, {b"content-type": b"application/json"})
        for _ in range(12):
            if not call.is_over:
                call.response_data(b" " * 10_000)

    # The first is counted with 220,000 by now, twice of what it had, so the second finds no room for as much.
    assert [call.is_over for call in calls] == [False, True]
    assert fronts[1].head["status"] == "503 Service Unavailable"
    assert (stage.gateway.bodies.held, stage.limiter.held) == (220_000, 1)

    calls[0].response_data(b"{}")
    calls[0].response_finished()
    del call, calls, fronts
    gc.collect()

    assert stage.gateway.bodies.held == 0
