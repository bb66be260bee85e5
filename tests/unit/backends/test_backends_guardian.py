"""Nothing that a worker started outlives it, or the server: with real processes, killed in all ways."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lingpai.backends.engines import guardian
from tests.unit.backends.worker_stories import is_running

# Starts one ordinary child, one in a session of its own, and one whose parent has gone: a daemon.
PARENT = """
import os, signal, subprocess, sys, time
sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleeper).pid
session = subprocess.Popen(sleeper, start_new_session=True).pid
daemon = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=-3, start_new_session=True).pid)"
orphan = int(subprocess.run([sys.executable, "-S", "-c", daemon, *sleeper], stdout=-1).stdout)
print(os.getpid(), child, session, orphan, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
END
"""
WAIT = "while True: time.sleep(1)"


@pytest.fixture
def guarded():
    """Starts PARENT, ending as it is told, under a guardian; the guardian and the processes' ids."""
    guardians = []

    def start(end):
        command = [
            sys.executable,
            "-I",
            "-S",
            guardian.__file__,
            sys.executable,
            "-c",
            PARENT.replace("END", end),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        guardians.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in guardians:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def all_gone(pids):
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(is_running, pids))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_workers_end_is_that_of_all_it_started_and_is_passed_on(guarded, end, code):
    process, pids = guarded(end)

    assert process.wait(10) == code
    assert all_gone(pids)


def test_when_the_lifeline_closes_everything_ends(guarded):
    process, pids = guarded(WAIT)
    assert all(map(is_running, pids))

    process.stdin.close()

    assert process.wait(10) == -signal.SIGKILL
    assert all_gone(pids)


def test_sigterm_is_for_the_worker(guarded):
    process, pids = guarded(WAIT)

    process.terminate()

    assert process.wait(10) == 0
    assert all_gone(pids)


def test_code_that_holds_the_interpreter_cannot_hold_up_the_end(guarded):
    process, pids = guarded("import ctypes; ctypes.PyDLL(None).sleep(60)")

    process.stdin.close()

    assert all_gone(pids)


def test_orphans_that_end_before_the_worker_are_not_left_as_zombies(guarded):
    process, (_, _, _, orphan) = guarded(WAIT)

    os.kill(orphan, signal.SIGTERM)

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(orphan, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the orphan is still in the table of processes")
    assert process.poll() is None


def test_a_server_that_is_killed_takes_all_along(write_app, short_dir):
    target = write_app("breeding.py", "import subprocess, sys\n" + BREED)
    script = SERVER.format(target=target, socket_path=str(short_dir / "w.sock"))

    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert all(map(is_running, pids))
        server.kill()

    assert all_gone(pids)


BREED = """
def breed(_):
    '''Three processes that would like to stay.'''
    sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    return [subprocess.Popen(sleeper, start_new_session=new).pid for new in (False, True)]
"""

SERVER = """
import asyncio, logging
from pathlib import Path
from lingpai.backends.worker import Worker
from tests.unit.backends.worker_stories import tell

async def main():
    worker = Worker({target!r}, socket_path=Path({socket_path!r}), name="x", log=logging.getLogger())
    await worker.start()
    print(worker.pid, *await tell(worker, 0), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
