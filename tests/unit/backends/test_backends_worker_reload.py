"""`--reload`: new code takes over when it can be loaded, and not before."""

import asyncio
import logging
import os

import httpx2
import pytest

from lingpai.backends import worker_reload, worker_replica
from lingpai.backends.worker import Worker
from lingpai.backends.worker_reload import SourceWatch
from tests.unit.backends.worker_stories import is_running, started, tell, wait_until

LOG = logging.getLogger("lingpai.backends")

MODEL = """
import time
import helper
import lingpai.authoring as lp

@lp.model("acme/{name}")
def answer(value):
    if value == "slow": time.sleep(0.5)
    return helper.ANSWER
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(worker_reload, "LOOK_EVERY_S", 0.03)


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "app.py").write_text(MODEL.format(name="one"))
    (tmp_path / "helper.py").write_text("ANSWER = 'old'\n")
    return tmp_path


@pytest.fixture
def heard():
    return []


@pytest.fixture
def make_worker(short_dir, sources, heard):
    def make(**more):
        worker = Worker(
            str(sources / "app.py"), socket_path=short_dir / "w.sock", name="mine", log=LOG,
            on_state=lambda state: heard.append((state, [model.id for model in worker.models])), **more,
        )  # fmt: skip
        return worker

    return make


def run(worker, story):
    async def reloading():
        async with started(worker):
            worker.reload_on_change()
            await story()

    asyncio.run(reloading())


async def wait_for_answer(worker, answer):
    async with asyncio.timeout(10):
        while await tell(worker, 0) != answer:
            await asyncio.sleep(0.02)


def test_a_changed_module_is_served_and_nobody_notices_the_change(make_worker, sources, caplog):
    worker = make_worker()

    async def story():
        transport = httpx2.AsyncHTTPTransport(uds=str(worker.socket_path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://worker") as client:
            first = worker.pid
            slow = asyncio.create_task(client.post("/v1/predict", json={"input_data": "slow"}))
            await asyncio.sleep(0.1)
            (sources / "helper.py").write_text("ANSWER = 'new'\n")
            await wait_for_answer(worker, "new")
            assert worker.pid != first
            assert (await slow).json() == "old"

    with caplog.at_level(logging.INFO, "lingpai.backends"):
        run(worker, story)

    assert "worker mine: helper.py changed" in caplog.text
    assert worker.state == "stopped"


def test_it_is_told_that_another_process_serves_while_the_old_one_still_takes_calls(make_worker, sources):
    """So that who holds connections to the old one can stop to use them in time."""
    told = []

    def replaced(replica):
        told.append((replica.name, first != worker.pid, is_running(first)))

    worker = make_worker(on_replaced=replaced)

    async def story():
        nonlocal first
        first = worker.pid
        (sources / "helper.py").write_text("ANSWER = 'new'\n")
        await wait_for_answer(worker, "new")

    first = None
    run(worker, story)

    assert told == [("mine", True, True)]


def test_other_models_are_told(make_worker, sources, heard):
    async def story():
        (sources / "app.py").write_text(MODEL.format(name="two"))
        await wait_until(lambda: len(heard) > 2)

    run(make_worker(), story)

    assert heard[1:3] == [("ready", ["acme/one"]), ("ready", ["acme/two"])]


def test_code_that_cannot_be_loaded_is_shown_and_the_old_goes_on(make_worker, sources, caplog):
    worker = make_worker()

    async def story():
        first = worker.pid
        (sources / "app.py").write_text("import brandnew\n" + MODEL.format(name="one"))
        (sources / "brandnew.py").write_text("def broken(:\n")
        await wait_until(lambda: "goes on with the code from before" in caplog.text)
        assert await tell(worker, 0) == "old"
        assert worker.pid == first

        (sources / "helper.py").write_text("ANSWER = 'mended'\n")
        (sources / "brandnew.py").write_text("")
        await wait_for_answer(worker, "mended")

    run(worker, story)

    assert "brandnew.py" in caplog.text


def test_changed_code_ends_the_wait_of_a_worker_that_could_not_come_back(
    make_worker, sources, caplog, monkeypatch
):
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 20.0)
    worker = make_worker()

    async def story():
        (sources / "app.py").write_text("raise RuntimeError('broken')\n")
        await wait_until(lambda: "goes on with" in caplog.text)
        os.kill(worker.pid, 9)
        await wait_until(lambda: "restarts in 20.0 s" in caplog.text)
        (sources / "app.py").write_text(MODEL.format(name="one"))
        async with asyncio.timeout(10):
            await wait_until(lambda: worker.state == "ready")

    run(worker, story)


def test_every_replica_is_reloaded(make_worker, sources):
    worker = make_worker(replicas=2)

    async def story():
        (sources / "helper.py").write_text("ANSWER = 'new'\n")
        for replica in worker.replicas:
            await wait_for_answer(replica, "new")

    run(worker, story)


def test_a_module_imported_later_is_watched_too(make_worker, sources):
    (sources / "app.py").write_text("def late(name):\n    import helper\n    return helper.ANSWER\n")
    worker = make_worker()

    async def story():
        assert await tell(worker, 0) == "old"
        await wait_until(lambda: str(sources / "helper.py") in worker.replicas[0].files)
        await asyncio.sleep(0.1)
        (sources / "helper.py").write_text("ANSWER = 'new'\n")
        await wait_for_answer(worker, "new")

    run(worker, story)


def test_a_file_that_is_being_written_is_waited_for(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("1")

    async def story():
        watch = SourceWatch(lambda: [str(file)])
        changed = asyncio.create_task(watch.changed())
        for length in range(2, 12):
            file.write_text("1" * length)
            await asyncio.sleep(0.02)
            assert not changed.done()
        assert await changed == [str(file)]

    asyncio.run(story())


def test_a_file_that_is_gone_is_no_change_until_it_is_back(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("1")

    async def story():
        watch = SourceWatch(lambda: [str(file)])
        changed = asyncio.create_task(watch.changed())
        file.unlink()
        await asyncio.sleep(0.15)
        assert not changed.done()
        file.write_text("other")
        assert await changed == [str(file)]

    asyncio.run(story())
