"""Workers that leak, hang, block, hoard and babble, as real processes."""

import asyncio
import logging

import pytest

from lingpai.backends import worker_launch, worker_replica, worker_watch
from lingpai.backends.worker import Worker
from lingpai.backends.worker_vitals import Vitals, read_vitals
from lingpai.backends.worker_watch import Fault
from tests.unit.backends.worker_stories import call, started, tell, wait_until

LOG = logging.getLogger("lingpai.backends")

APP = """
import ctypes, mmap, os, subprocess, sys, tempfile, time
import lingpai.authoring as lp
from lingpai.backends.engines import calls
calls.OVERRUN_GRACE_S = 0.2
held = []

@lp.model("acme/does", memory_mb=150, timeout_s=1.0, concurrency=2)
def does(command):
    match command:
        case "leak": held.append(b"x" * 140_000_000)
        case "flood": held.append(b"x" * 250_000_000)
        case "map":
            with tempfile.TemporaryFile() as file:
                file.truncate(250_000_000)
                view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                held.append(view)
                return sum(view[at] for at in range(0, len(view), 4096))
        case "hang": time.sleep(60)
        case "block": ctypes.PyDLL(None).sleep(60)
        case "hoard":
            while True: held.append(os.dup(0))
        case "babble":
            for _ in range(60): print("x" * 99_999)
        case "mute": os.close(1); os.close(2); sys.stdout = sys.stderr = None
        case "fail": raise RuntimeError("why")
        case "nap": time.sleep(0.25)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def app(write_app):
    return write_app("faulty_models.py", APP)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(worker_watch, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(worker_watch, "SILENCE_GRACE_S", 1.5)
    monkeypatch.setattr(worker_watch, "SILENCE_WARNING_S", 1.2)


@pytest.fixture
def make_worker(short_dir, app):
    return lambda: Worker(app, socket_path=short_dir / "w.sock", name="mine", log=LOG)


@pytest.fixture
def restarted(make_worker, caplog):
    """Makes a call that the worker should not survive; the log of it."""

    async def story(command):
        async with started(make_worker()) as worker:
            first = worker.pid
            await asyncio.gather(tell(worker, command), return_exceptions=True)
            await wait_until(lambda: worker.state == "restarting")
            await wait_until(lambda: worker.state == "ready")
            assert await tell(worker, "pid") == worker.pid != first

    def run(command):
        asyncio.run(story(command))
        return caplog.text

    return run


def test_a_worker_over_its_memory_limit_is_restarted(restarted):
    log = restarted("flood")

    assert "worker mine is restarted: it holds" in log
    assert "MB, and may hold 150" in log


def test_over_the_limit_calls_may_finish_but_far_over_it_they_may_not():
    process = type("Process", (), {"pid": 1})()

    async def faults(monkeypatch):
        found = []
        for memory in (399, 401, 501):
            monkeypatch.setattr(worker_watch, "read_vitals", lambda pid, memory=memory, **_: Vitals(memory))
            found.append(await worker_watch._holds_too_much(process, 400))
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        fine, over, far_over = asyncio.run(faults(monkeypatch))

    assert fine is None
    assert over == Fault("it holds 401 MB, and may hold 400", worker_watch.DRAIN_S)
    assert far_over == Fault("it holds 501 MB, and may hold 400", 0.0)


def test_mapped_files_do_not_count(make_worker):
    async def story():
        async with started(make_worker()) as worker:
            pid = worker.pid
            await call(worker, "map")
            vitals = read_vitals(pid, memory_limit_mb=150)
            await asyncio.sleep(0.2)
            assert worker.pid == pid
            return vitals

    assert 10 < asyncio.run(story()).memory_mb < 100


def test_a_call_that_does_not_end_gets_its_caller_a_504_and_the_worker_restarted(
    make_worker, caplog, monkeypatch
):
    monkeypatch.setattr(worker_replica, "OVERRUN_DRAIN_S", 0.3)

    async def story():
        async with started(make_worker()) as worker:
            first = worker.pid
            response = await call(worker, "hang")
            assert response.status_code == 504
            assert response.json()["error"]["code"] == "backend_timeout"
            await wait_until(lambda: worker.state == "restarting")
            await wait_until(lambda: worker.state == "ready")
            assert worker.pid != first

    asyncio.run(story())

    assert "worker mine is restarted: a call of acme/does does not end" in caplog.text


def test_a_worker_that_is_silent_for_too_long_is_killed(restarted):
    log = restarted("block")

    assert "its code holds the interpreter or the event loop" in log
    assert "worker mine is restarted: it has not answered for" in log


def test_without_a_time_out_on_every_model_silence_is_never_too_long():
    def model(timeout):
        return worker_launch.WorkerModel(id="a/b", task="generic", timeout_s=timeout)

    assert worker_watch._longest_silence([model(5), model(7)]) == 7 + worker_watch.SILENCE_GRACE_S
    assert worker_watch._longest_silence([model(5), model(None)]) == float("inf")
    assert worker_watch._longest_silence([]) == float("inf")


def test_a_worker_out_of_descriptors_is_restarted(restarted):
    assert "file descriptors" in restarted("hoard")


def test_calls_that_run_finish_before_a_worker_over_its_limit_is_restarted(make_worker):
    async def story():
        async with started(make_worker()) as worker:
            nap = asyncio.create_task(tell(worker, "nap"))
            await asyncio.sleep(0.05)
            first = worker.pid
            await asyncio.gather(tell(worker, "leak"), return_exceptions=True)
            assert await nap == first
            await wait_until(lambda: worker.pid not in (None, first))

    asyncio.run(story())


def test_megabytes_of_output_are_left_out_and_counted(make_worker, caplog):
    async def story():
        async with started(make_worker()) as worker:
            assert await tell(worker, "babble")

    with caplog.at_level(logging.INFO, "lingpai.models.mine"):
        asyncio.run(story())

    lines = [record.getMessage() for record in caplog.records if record.name == "lingpai.models.mine"]
    assert sum(map(len, lines)) < 1_000_000
    assert any("prints more than 64 kB a second" in line for line in lines)
    assert any(line.endswith("bytes of output were left out") for line in lines)
    assert all(len(line) < 8300 for line in lines)


def test_a_worker_that_closes_its_output_goes_on_and_its_failures_are_still_told(make_worker, caplog):
    async def story():
        async with started(make_worker()) as worker:
            assert await tell(worker, "mute") == worker.pid
            assert (await call(worker, "fail")).status_code == 500
            assert await tell(worker, "pid") == worker.pid
            assert worker.state == "ready"

    asyncio.run(story())

    assert "RuntimeError: why" in caplog.text
