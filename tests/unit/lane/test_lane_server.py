"""Listening: the administration socket, and draining."""

import asyncio
import os
import stat

import pytest
from front_harness import post

from lingpai.lane.doorman import Bounds

# -- the server


def test_admin_socket_is_for_this_user_only(run, lane):
    async def test():
        before = os.umask(0o022)
        os.umask(before)
        async with lane() as running:
            mode = stat.S_IMODE(running.admin_socket.stat().st_mode)
            after = os.umask(before)
            return mode, before == after

    assert run(test()) == (0o600, True)


def test_admin_socket_may_lie_in_a_folder_with_a_long_name(run, lane, tmp_path):
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)

    async def test():
        async with lane(admin_socket=folder / "admin.sock") as running:
            caller = await running.local_caller()
            await caller.send(post(b"/call", b"hi"))
            return await caller.answer(), stat.S_IMODE((folder / "admin.sock").stat().st_mode)

    assert run(test()) == ((200, b"call:hi"), 0o600)


def test_draining_lets_a_call_finish(run, lane):
    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            draining = asyncio.create_task(running.server.drain())
            await asyncio.sleep(0.15)
            call.answer(b"done")
            answer, rest = await caller.answer(), await caller.rest()
            await draining
            return answer, rest, call.told

    assert run(test()) == ((200, b"done"), b"", ["complete"])


@pytest.mark.parametrize("is_local", [False, True])
def test_draining_stops_what_does_not_finish_in_time(run, lane, is_local):
    async def test():
        async with lane() as running:
            caller = await (running.local_caller() if is_local else running.caller())
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            await running.server.drain()
            return await caller.answer(), await caller.rest(), call.told

    assert run(test()) == ((200, b"stopped"), b"", ["complete", "stop"])


def test_draining_closes_idle_connections_and_accepts_no_new_ones(run, lane):
    async def test():
        async with lane() as running:
            callers = [await running.caller(), await running.local_caller()]
            for caller in callers:
                await caller.send(post())
                await caller.answer()
            await running.server.drain()
            rests = [await caller.rest() for caller in callers]
            with pytest.raises(ConnectionRefusedError):
                await running.caller()
            return rests

    assert run(test()) == [b"", b""]


def test_draining_waits_for_last_events_that_take_their_time(run, lane):
    """Under load the record of a stopped stream, and so its last event, may take a moment."""

    async def test():
        async with lane() as running:
            caller = await running.caller()
            await caller.send(post(b"/call/wait"))
            call = await running.call()
            await call.complete.wait()
            loop = asyncio.get_running_loop()
            call.stop = lambda: loop.call_later(0.3, call.answer, b"late")
            await running.server.drain()
            return await caller.answer(), call.front.call

    assert run(test()) == ((200, b"late"), None)


def test_call_that_cannot_be_stopped_takes_no_last_event_from_others(run, lane, caplog):
    async def test():
        async with lane() as running:
            callers = [await running.caller() for _ in range(3)]
            for number, caller in enumerate(callers):
                await caller.send(post(b"/call/wait"))
                await (await running.call(number)).complete.wait()
            for call in running.calls.opened[
                :2
            ]:  # in whatever order they are stopped, one is before the good one
                call.stop = None
            await running.server.drain()
            return await callers[2].answer()

    assert run(test()) == (200, b"stopped")
    told = [record.message for record in caplog.records if record.name == "lingpai.lane"]
    assert told == ["a call could not be stopped in an orderly way"] * 2


def test_draining_closes_half_sent_heads_at_once(run, lane):
    """Slow connections do not hold the stop up."""

    async def test():
        async with lane() as running:
            callers = [await running.caller() for _ in range(20)]
            for caller in callers:
                await caller.send(b"POST /call HTTP/1.1\r\nx-slow: ")
            await asyncio.sleep(0.02)
            running.server.reconfigure(keep_alive_s=600, stop_timeout_s=60, bounds=Bounds())
            await running.server.drain()
            return [await each.rest() for each in callers]

    assert run(test()) == [b""] * 20


# -- settings that change


def test_bounds_and_times_change_while_running(run, lane):
    async def test():
        async with lane() as running:
            running.server.reconfigure(keep_alive_s=7, stop_timeout_s=3, bounds=Bounds(connections=1))
            first, second = await running.caller(), await running.caller()
            await second.send(post())
            return await first.rest(), await second.answer(), running.server._server.config.timeout_keep_alive

    assert run(test()) == (b"", (200, b"call:"), 7)
