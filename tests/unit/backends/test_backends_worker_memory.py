"""Workers that hold far more than they may while nothing else is asked of them: loading, finishing, being replaced."""

import asyncio
import logging
import time

import pytest

from lingpai.backends import worker_reload, worker_replica, worker_watch
from lingpai.backends.worker import Worker, WorkerStartError
from tests.unit.backends.worker_stories import call, is_running, started, tell, wait_until

LOG = logging.getLogger("lingpai.backends")

APP = """
import time
import lingpai.authoring as lp
held = []

def hold(megabytes):
    held.append(b"x" * (megabytes * 10**6))

@lp.model("acme/hungry", memory_mb=150)
class Hungry:
    def load(self, context):
        {load}

    def __call__(self, command):
        if command == "version": return {version!r}
        now, seconds, then = command
        hold(now)
        time.sleep(seconds)
        hold(then)
        time.sleep(60)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(worker_reload, "LOOK_EVERY_S", 0.03)
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(worker_watch, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def write(tmp_path):
    def write(load="pass", version="old"):
        (tmp_path / "hungry.py").write_text(APP.format(load=load, version=version))

    return write


@pytest.fixture
def worker(short_dir, tmp_path, write):
    write()
    return Worker(str(tmp_path / "hungry.py"), socket_path=short_dir / "w.sock", name="mine", log=LOG)


def test_one_that_grows_while_its_calls_finish_is_killed_at_once(worker, caplog):
    async def story():
        async with started(worker):
            running = asyncio.create_task(call(worker, [140, 0.5, 100]))
            await wait_until(lambda: worker.state == "restarting")
            await wait_until(lambda: worker.state == "ready", seconds=10)
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())

    assert "worker mine is killed while its calls finish: it holds" in caplog.text


def test_one_that_holds_far_too_much_while_loading_does_not_start(worker, write):
    write(load="hold(250); time.sleep(60)")

    began = time.monotonic()
    with pytest.raises(WorkerStartError, match=r"while loading: it holds \d+ MB, and may hold 150") as raised:
        asyncio.run(worker.start())

    assert time.monotonic() - began < 10
    assert "memory_mb" in raised.value.message
    assert worker.state == "stopped"


def test_one_that_is_being_replaced_is_killed_at_once(worker, write, caplog):
    async def story():
        async with started(worker):
            worker.reload_on_change()
            old = worker.pid
            write(load="time.sleep(3)", version="new")
            running = asyncio.create_task(call(worker, [0, 0.5, 250]))
            await wait_until(lambda: worker.state == "restarting")
            await wait_until(lambda: not is_running(old), seconds=2)
            await wait_until(lambda: worker.state == "ready")
            assert await tell(worker, "version") == "new"
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())

    assert "worker mine is killed while another one is loaded to replace it: it holds" in caplog.text


def test_one_that_was_replaced_is_killed_at_once(worker, write, caplog):
    async def story():
        async with started(worker):
            worker.reload_on_change()
            old = worker.pid
            running = asyncio.create_task(call(worker, [0, 3, 250]))
            await asyncio.sleep(0.1)
            write(version="new")
            await wait_until(lambda: worker.pid != old and worker.state == "ready")
            assert await tell(worker, "version") == "new"
            await wait_until(lambda: not is_running(old), seconds=10)
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())

    assert "worker mine is killed while its calls finish: it holds" in caplog.text
