"""The supervisor with real worker processes."""

import asyncio
import errno
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
import uvloop

from lingpai.backends import worker_launch, worker_process, worker_replica
from lingpai.backends.worker import Worker, WorkerStartError
from lingpai.backends.worker_launch import describe_exit
from lingpai.backends.worker_process import WorkerProcess
from lingpai.backends.worker_replica import BackOff
from tests.unit.backends.worker_stories import is_running, started, tell, wait_until

LOG = logging.getLogger("lingpai.backends")

APP = """
import logging, os, signal, subprocess, sys, time

def predict(command):
    '''Does as it is told.'''
    match command:
        case "print": print("a \\x1b[31mred line"); print("to stderr", file=sys.stderr)
        case "log": logging.getLogger("acme").warning("low on\\nmemory")
        case "fail": raise RuntimeError("why\\nexactly")
        case "die": os._exit(7)
        case "kill": os.kill(os.getpid(), signal.SIGKILL)
        case "child": return subprocess.Popen(["sleep", "60"]).pid
        case "sleep": print("asleep"); time.sleep(30)
        case "read": return sys.stdin.read()
        case "variables": return [os.environ.get(name) for name in
                                  ("LINGPAI_PEPPER", "LINGPAI_ROOT_KEY", "OF_THE_MODEL")]
    return os.getpid()
"""


@pytest.fixture(scope="module")
def app(write_app):
    return write_app("worker_app.py", APP)


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


def test_a_worker_serves_what_its_target_holds(make_worker, app, states):
    async def story():
        async with started(make_worker(app)) as worker:
            (model,) = worker.models
            assert (model.id, model.task, model.description) == (
                "local/predict",
                "generic",
                "Does as it is told.",
            )
            assert worker.retry_after == 0
            assert await tell(worker, "pid") == worker.pid
            assert stat.S_IMODE(worker.socket_path.stat().st_mode) == 0o600
        assert not worker.socket_path.exists()
        assert worker.pid is None

    asyncio.run(story())

    assert states == ["loading", "ready", "stopped"]


def test_what_models_print_is_logged_line_by_line_under_their_name(make_worker, app, caplog):
    async def story():
        async with started(make_worker(app)) as worker:
            await tell(worker, "print")

    with caplog.at_level(logging.INFO, "lingpai.models.mine"):
        asyncio.run(story())

    lines = [record.getMessage() for record in caplog.records if record.name == "lingpai.models.mine"]
    assert lines == ["a \\x1b[31mred line", "to stderr"]


def test_what_models_log_and_how_calls_fail_keep_their_levels(make_worker, app, caplog):
    async def story():
        async with started(make_worker(app)) as worker:
            await tell(worker, "log")
            await tell(worker, "fail")
            await tell(worker, "print")

    with caplog.at_level(logging.INFO, "lingpai.models.mine"):
        asyncio.run(story())

    records = [record for record in caplog.records if record.name == "lingpai.models.mine"]
    shown = [(record.levelname, record.getMessage()) for record in records]
    assert shown[:2] == [("WARNING", "acme: low on"), ("WARNING", "  memory")]
    assert shown[2] == ("ERROR", "call - to /v1/predict failed: Traceback (most recent call last):")
    assert {level for level, _ in shown[2:-2]} == {"ERROR"}
    assert [text for _, text in shown[-4:-2]] == ["  RuntimeError: why", "  exactly"]
    assert {level for level, _ in shown[-2:]} == {"INFO"}


def test_a_crashed_worker_is_restarted(make_worker, app, states, caplog):
    async def story():
        async with started(make_worker(app)) as worker:
            first = worker.pid
            with pytest.raises(httpx2.HTTPError):
                await tell(worker, "die")
            await wait_until(lambda: worker.state == "restarting")
            assert worker.retry_after >= 1
            await wait_until(lambda: worker.state == "ready")
            assert await tell(worker, "pid") == worker.pid != first

    asyncio.run(story())

    assert states == ["loading", "ready", "restarting", "ready", "stopped"]
    assert "exit code 7" in caplog.text
    assert "restarts in 0.5 s" in caplog.text


def test_a_worker_that_cannot_come_back_is_tried_again_later_and_later(
    make_worker, write_app, caplog, monkeypatch
):
    monkeypatch.setattr(worker_replica, "FIRST_DELAY_S", 0.02)
    target = write_app("breaking.py", APP)

    async def story():
        async with started(make_worker(target)) as worker:
            Path(target).write_text("raise RuntimeError('broken meanwhile')")
            os.kill(worker.pid, signal.SIGKILL)
            await wait_until(lambda: caplog.text.count("did not restart") == 2)
            assert worker.state == "restarting"
            Path(target).write_text(APP)
            await wait_until(lambda: worker.state == "ready")

    asyncio.run(story())

    assert "killed by SIGKILL" in caplog.text
    assert "broken meanwhile" in caplog.text
    assert "restarts in 0.0 s" in caplog.text
    assert "restarts in 0.1 s" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "cannot be read"),
        ("raise ValueError('why')", "ValueError: why"),
        ("x = 1", "nothing to serve"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended while loading: killed by SIGSEGV"),
        ("import os; print('last words', flush=True); os._exit(3)", "exit code 3.\nlast words"),
    ],
)
def test_a_target_that_cannot_be_served_stops_the_start_and_says_why(
    make_worker, write_app, states, text, reason
):
    worker = make_worker(write_app("cannot.py", text))

    with pytest.raises(WorkerStartError) as caught:
        asyncio.run(worker.start())

    assert reason in str(caught.value)
    assert states == ["loading", "stopped"]


def test_a_failing_load_shows_the_authors_traceback(make_worker, write_app):
    text = """
    import lingpai.authoring as lp
    @lp.model("acme/heavy")
    class Heavy:
        def load(self, context): raise MemoryError("no room")
        def __call__(self, x): ...
    """

    with pytest.raises(
        WorkerStartError, match=r"(?m)`acme/heavy` could not be loaded: MemoryError: no room\.$"
    ) as caught:
        asyncio.run(make_worker(write_app("heavy.py", text)).start())

    assert "def load(self, context)" in caught.value.details
    assert "engines" not in caught.value.details


def test_a_module_missing_in_load_is_named_as_one_missing_on_import_is(make_worker, write_app):
    text = """
    import lingpai.authoring as lp
    @lp.model("acme/needy")
    class Needy:
        def load(self, context): import surely_not_installed
        def __call__(self, x): ...
    """

    with pytest.raises(WorkerStartError) as caught:
        asyncio.run(make_worker(write_app("needy.py", text)).start())

    assert caught.value.message == (
        "`acme/needy` needs the module `surely_not_installed`, which is not installed beside Lingpai."
        " Install the package that has it into the same environment: `python -m pip install …`."
    )
    assert "def load(self, context)" in caught.value.details


def test_a_slow_load_shows_progress(make_worker, write_app, monkeypatch):
    monkeypatch.setattr(worker_launch, "PROGRESS_AFTER_S", 0.1)
    monkeypatch.setattr(worker_launch, "PROGRESS_EVERY_S", 0.05)
    text = """
    import asyncio
    import lingpai.authoring as lp
    @lp.model("acme/slow")
    class Slow:
        async def load(self, context): await asyncio.sleep(0.6)
        def __call__(self, x): ...
    """
    shown = []

    async def story():
        async with started(make_worker(write_app("slow.py", text), on_progress=shown.append)):
            pass

    asyncio.run(story())

    assert shown[-1].startswith("loading acme/slow … ")
    assert len(shown) > 2


def test_stop_ends_a_busy_worker_and_what_it_started(make_worker, app, monkeypatch):
    monkeypatch.setattr("lingpai.backends.worker_process.STOP_AFTER_S", 0.3)

    async def story():
        async with started(make_worker(app)) as worker:
            child = await tell(worker, "child")
            call = asyncio.create_task(tell(worker, "sleep"))
            await asyncio.sleep(0.1)
            pid = worker.pid
            await worker.stop()
            await asyncio.gather(call, return_exceptions=True)
            await wait_until(lambda: not is_running(pid) and not is_running(child))

    asyncio.run(story())


def test_a_killed_guardian_takes_its_worker_along_and_both_come_back(make_worker, app):
    async def story():
        async with started(make_worker(app)) as worker:
            first, child = worker.pid, await tell(worker, "child")
            guardian = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
            assert guardian != os.getpid()

            os.kill(guardian, signal.SIGKILL)

            await wait_until(lambda: worker.state == "restarting")
            await wait_until(lambda: not is_running(first) and not is_running(child))
            await wait_until(lambda: worker.state == "ready")
            assert await tell(worker, "pid") == worker.pid != first

    asyncio.run(story())


def test_stop_while_restarting_ends_the_attempts(make_worker, app):
    async def story():
        async with started(make_worker(app)) as worker:
            os.kill(worker.pid, signal.SIGKILL)
            await wait_until(lambda: worker.state == "restarting")
            await worker.stop()
            assert worker.state == "stopped"
            assert worker.pid is None

    asyncio.run(story())


@pytest.mark.parametrize("pipes", [1, 2])
def test_a_start_without_descriptors_leaves_none_open(short_dir, app, monkeypatch, pipes):
    """It is tried again and again: each would take four more from the server, which has too few already."""
    make_pipe, made = os.pipe, []

    def pipe():
        if len(made) == pipes:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(make_pipe())
        return made[-1]

    def socketpair():
        raise OSError(errno.EMFILE, "Too many open files")

    async def story():
        process = WorkerProcess(app, short_dir / "w.sock", output=LOG, on_event=lambda _: None)
        monkeypatch.setattr(worker_process.os, "pipe", pipe)
        monkeypatch.setattr(worker_process.socket, "socketpair", socketpair)
        with pytest.raises(OSError, match="Too many open files"):
            await process.start()

    asyncio.run(story())

    assert len(made) == pipes
    for descriptor in (each for pair in made for each in pair):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_start_that_is_given_up_leaves_no_process(make_worker, write_app):
    worker = make_worker(write_app("forever.py", "import time\ntime.sleep(60)\n"))

    async def story():
        start = asyncio.create_task(worker.start())
        await wait_until(lambda: worker.pid is not None)
        pid = worker.pid
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        assert not is_running(pid)
        assert worker.state == "stopped"

    asyncio.run(story())


def test_a_socket_left_behind_is_replaced(make_worker, app, short_dir):
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])",
            short_dir / "w.sock",
        ],
        check=True,
    )

    async def story():
        async with started(make_worker(app)) as worker:
            assert await tell(worker, "pid") == worker.pid

    asyncio.run(story())


def test_a_file_in_the_sockets_place_is_left_alone(make_worker, app, short_dir):
    (short_dir / "w.sock").write_text("precious")

    async def story():
        worker = make_worker(app)
        with pytest.raises(WorkerStartError, match="not a socket"):
            await worker.start()
        await worker.stop()

    asyncio.run(story())

    assert (short_dir / "w.sock").read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused_with_advice(app):
    worker = Worker(app, socket_path=Path("/tmp") / ("x" * 120), name="mine", log=LOG)

    with pytest.raises(WorkerStartError, match="shorter path"):
        asyncio.run(worker.start())


def test_a_models_standard_input_is_empty(make_worker, app):
    async def story():
        async with started(make_worker(app)) as worker:
            assert await tell(worker, "read") == ""

    asyncio.run(story())


def test_a_model_gets_the_environment_without_the_servers_secrets(make_worker, app, monkeypatch):
    """With them and a copy of the database, a model's code could make keys and read providers' keys."""
    monkeypatch.setenv("LINGPAI_PEPPER", "ab" * 32)
    monkeypatch.setenv("LINGPAI_ROOT_KEY", "cd" * 32)
    monkeypatch.setenv("OF_THE_MODEL", "its own")

    async def test():
        async with started(make_worker(app)) as worker:
            return await tell(worker, "variables")

    assert asyncio.run(test()) == [None, None, "its own"]


def test_a_worker_dies_with_its_supervisor(app, short_dir):
    script = f"""
import asyncio, logging
from pathlib import Path
from lingpai.backends.worker import Worker

async def main():
    worker = Worker({app!r}, socket_path=Path({str(short_dir / "w.sock")!r}), name="x", log=logging.getLogger())
    await worker.start()
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()

    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def test_the_supervisor_works_on_the_servers_event_loop(make_worker, app, states):
    async def story():
        async with started(make_worker(app)) as worker:
            os.kill(worker.pid, signal.SIGKILL)
            await wait_until(lambda: states.count("ready") == 2)
            assert await tell(worker, "pid") == worker.pid

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_delays_double_up_to_half_a_minute_and_start_over_after_health():
    back_off = BackOff()

    assert [back_off.next_delay() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    back_off.reset()
    assert back_off.next_delay() == 0.5


def test_exit_codes_are_explained():
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-9) == "killed by SIGKILL; the system may have run out of memory"
