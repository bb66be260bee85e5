"""Several processes behind one backend."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from lingpai.backends import worker_replica
from lingpai.backends.worker import Worker, WorkerStartError
from tests.unit.backends.worker_stories import is_running, started, tell, wait_until

LOG = logging.getLogger("lingpai.backends")

APP = """
import os
import lingpai.authoring as lp

@lp.model("acme/pid", replicas=2)
def pid(_):
    print("called")
    return os.getpid()
"""


@pytest.fixture(scope="module")
def app(write_app):
    return write_app("replicated.py", APP)


@pytest.fixture
def states():
    return []


@pytest.fixture
def make_worker(short_dir, states):
    def make(target, **more):
        return Worker(
            target, socket_path=short_dir / "w.sock", name="mine", log=LOG, on_state=states.append, **more
        )

    return make


def test_a_models_replicas_each_have_a_process_and_a_socket(make_worker, app, states):
    async def story():
        async with started(make_worker(app)) as worker:
            pids = [await tell(replica, 0) for replica in worker.replicas]
            assert len(set(pids)) == 2
            assert pids == [replica.pid for replica in worker.replicas]
            assert [replica.name for replica in worker.replicas] == ["mine", "mine#2"]
            assert worker.replicas[0].socket_path == worker.socket_path
            assert [model.id for model in worker.models] == ["acme/pid"]
            return pids, [replica.socket_path for replica in worker.replicas]

    pids, paths = asyncio.run(story())

    assert states == ["loading", "ready", "stopped"]
    assert not any(map(is_running, pids))
    assert not any(map(Path.exists, paths))


def test_what_the_server_is_told_overrules_the_decorator(make_worker, app):
    async def story():
        async with started(make_worker(app, replicas=1)) as worker:
            assert len(worker.replicas) == 1
            assert worker.pick(lambda _: 5) is worker.replicas[0]

    asyncio.run(story())


def test_one_that_dies_does_not_take_the_model_down(make_worker, app, states):
    async def story():
        async with started(make_worker(app)) as worker:
            first, second = worker.replicas
            os.kill(first.pid, signal.SIGKILL)
            await wait_until(lambda: first.state == "restarting")

            assert worker.state == "ready"
            assert worker.retry_after == 0
            assert {worker.pick(lambda _: 0) for _ in range(4)} == {second}
            assert await tell(worker.pick(lambda _: 0), 0) == second.pid

            await wait_until(lambda: first.state == "ready")
            assert await tell(first, 0) == first.pid

    asyncio.run(story())

    assert states == ["loading", "ready", "stopped"]


def test_one_that_has_just_died_gets_no_calls_although_it_is_not_known_to_be_dead(make_worker, app):
    """It has the fewest calls of all, so without a first sign it would get every one until its end is noticed."""

    async def story():
        async with started(make_worker(app)) as worker:
            first, second = worker.replicas
            os.kill(first.pid, signal.SIGKILL)
            await wait_until(lambda: first.is_mute or first.state != "ready")

            assert {worker.pick({first: 0, second: 9}.__getitem__) for _ in range(4)} == {second}

    asyncio.run(story())


def test_when_all_are_away_so_is_the_model(make_worker, app, states, monkeypatch):
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 1.5)

    async def story():
        async with started(make_worker(app)) as worker:
            for replica in worker.replicas:
                os.kill(replica.pid, signal.SIGKILL)
            await wait_until(lambda: worker.state == "restarting")
            assert worker.retry_after >= 1
            await wait_until(lambda: worker.state == "ready")

    asyncio.run(story())

    assert states == ["loading", "ready", "restarting", "ready", "stopped"]


def test_a_worker_that_is_stopped_while_one_comes_back_says_only_that_it_has_stopped(
    make_worker, write_app, states, monkeypatch
):
    """The one that serves ends first; the one that loads takes its time."""
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 0.01)
    third_time_slow = """
        import os, pathlib, signal, time
        import lingpai.authoring as lp
        loads = pathlib.Path(__file__).with_suffix(".loads")
        with loads.open("a") as file: file.write("x")
        if loads.stat().st_size == 3:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            loads.with_suffix(".slow").touch()
            time.sleep(1)
            os._exit(1)

        @lp.model("acme/slow", replicas=2)
        def slow(_): ...
        """
    target = write_app("third_time_slow.py", third_time_slow)

    async def story():
        async with started(make_worker(target)) as worker:
            os.kill(worker.replicas[1].pid, signal.SIGKILL)
            await wait_until(Path(target).with_suffix(".slow").exists)

    asyncio.run(story())

    assert states == ["loading", "ready", "stopped"]


def test_a_call_goes_to_the_least_busy_one_and_in_turns_among_equals(make_worker, app):
    async def story():
        async with started(make_worker(app, replicas=3)) as worker:
            one, two, three = worker.replicas
            busy = {one: 2, two: 1, three: 2}
            assert [worker.pick(busy.__getitem__) for _ in range(3)] == [two] * 3
            assert {worker.pick(lambda _: 7) for _ in range(3)} == {one, two, three}

    asyncio.run(story())


def test_a_replica_that_cannot_start_stops_the_start_and_leaves_nothing(make_worker, write_app, states):
    once = """
        import pathlib
        import lingpai.authoring as lp
        mark = pathlib.Path(__file__).with_suffix(".mark")
        if mark.exists(): raise RuntimeError("only once")
        mark.touch()

        @lp.model("acme/once", replicas=2)
        def once(_): ...
        """
    worker = make_worker(write_app("once.py", once))

    with pytest.raises(WorkerStartError, match="only once"):
        asyncio.run(worker.start())

    assert worker.pid is None
    assert states[-1] == "stopped"


def test_each_replica_prints_under_its_own_name(make_worker, app, caplog):
    async def story():
        async with started(make_worker(app)) as worker:
            await tell(worker.replicas[1], 0)

    with caplog.at_level(logging.INFO, "lingpai.models"):
        asyncio.run(story())

    printed = [record.name for record in caplog.records if record.getMessage() == "called"]
    assert printed == ["lingpai.models.mine#2"]
