"""The queue before a function."""

import asyncio

import pytest

from lingpai.backends.engines.gate import Gate, Pace
from lingpai.errors import LingpaiError


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_calls_enter_in_the_order_they_came():
    async def story():
        gate = Gate(1, most_waiting=9, name="acme/x")
        entered = []

        async def call(number):
            await gate.enter()
            entered.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(call(number))
            for count in range(1, 5):
                await settle()
                assert entered == list(range(count))
                gate.leave(0.1)

    asyncio.run(story())


def test_a_full_queue_refuses_and_says_when_to_come_back():
    async def story():
        gate = Gate(2, most_waiting=4, name="acme/x")
        for _ in range(2):
            await gate.enter()
        gate.leave(5.0)
        await gate.enter()
        waiting = [asyncio.create_task(gate.enter()) for _ in range(4)]
        await settle()

        with pytest.raises(LingpaiError) as refused:
            await gate.enter()

        assert (refused.value.code, refused.value.status) == ("backend_unavailable", 503)
        assert "`acme/x` is busy: 4 calls wait already" in refused.value.message
        assert refused.value.headers == {"retry-after": "10"}
        for task in waiting:
            task.cancel()

    asyncio.run(story())


def test_who_leaves_while_waiting_gives_the_place_back():
    async def story():
        gate = Gate(1, most_waiting=1, name="acme/x")
        await gate.enter()
        leaver = asyncio.create_task(gate.enter())
        await settle()
        leaver.cancel()
        await settle()

        stayer = asyncio.create_task(gate.enter())
        await settle()
        gate.leave(0)

        await stayer

    asyncio.run(story())


def test_a_turn_that_comes_in_the_moment_of_leaving_goes_to_the_next():
    async def story():
        gate = Gate(1, most_waiting=9, name="acme/x")
        await gate.enter()
        leaver, stayer = (asyncio.create_task(gate.enter()) for _ in range(2))
        await settle()

        gate.leave(0)
        leaver.cancel()

        await asyncio.wait_for(stayer, 1)
        assert leaver.cancelled()

    asyncio.run(story())


def test_a_gate_without_a_size_lets_everybody_through():
    async def story():
        gate = Gate(None, most_waiting=0, name="acme/x")
        for _ in range(100):
            await gate.enter()

    asyncio.run(story())


@pytest.mark.parametrize(("seconds", "rounds", "answer"), [(0.0, 9, 1), (0.5, 9, 5), (30.0, 9, 60)])
def test_it_is_worth_another_try_when_the_queue_will_have_passed(seconds, rounds, answer):
    pace = Pace()
    pace.learn(seconds)

    assert pace.retry_after(rounds) == answer
