"""The process between the server and a worker: when either ends, so does everything that the worker started.

    python -I -S guardian.py COMMAND …       `{guardian}` in the command becomes this process's id

It starts COMMAND and waits. Standard input is the lifeline: when the server closes it, or dies in any way, the worker
and all its descendants are killed. When the worker ends, its descendants are killed and its exit status is passed on.
SIGTERM goes to the worker.

A process of its own, because code that holds the interpreter lock would keep a thread from noticing, and because the
kernel's own means reach the worker only. As a "subreaper" (Linux, prctl(2)) it inherits every orphan below it, also
those in sessions of their own. Elsewhere only the worker's process group is killed. Runs as a file, isolated, on a few
modules of the standard library: there is one of it per worker.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_KILL_FOR_S: Final = 3.0
_MOST_DESCRIPTORS: Final = 1 << 20


def main(command: list[str]) -> None:
    """Guard one run of `command`; ends as it ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guardian = str(os.getpid())
    child = os.fork()
    if child == 0:
        _become([guardian if word == "{guardian}" else word for word in command])
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: _send(child, number))
    _close_all_but(0, wakeup, theirs)  # the worker's output and status are its own
    status = _watch(child, wakeup)
    _end_descendants(child)
    _end_as(status)


def _close_all_but(*kept: int) -> None:
    for low, high in pairwise([*sorted(kept), _MOST_DESCRIPTORS]):
        os.closerange(low + 1, high)


def _become(command: list[str]) -> None:
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606  our own interpreter, as the supervisor wrote it
    finally:
        os._exit(127)


def _watch(child: int, wakeup: int) -> int | None:
    """The child's wait status when it has ended; None when the server is gone, or wants it gone."""
    events = select.poll()
    events.register(0, select.POLLIN)
    events.register(wakeup, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in events.poll()}
        if wakeup in ready:
            os.read(wakeup, 4096)
        for pid, status in _reap():  # orphans end here, too
            if pid == child:
                return status
        if 0 in ready and not os.read(0, 4096):
            return None


def _reap() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended.append((pid, status))
    return ended


def _end_descendants(child: int) -> None:
    """Kill until nobody is left: whose parent is killed becomes a child of ours in turn."""
    _kill_group(child)
    deadline = time.monotonic() + _KILL_FOR_S
    while time.monotonic() < deadline:
        _reap()
        children = _children()
        for pid in children:
            _send(pid, signal.SIGKILL)
        if not children:
            return
        time.sleep(0.002)


def _children() -> list[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:  # not on Linux: the process group was all we can find
        return []
    return [int(pid) for pid in text.split()]


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _end_as(status: int | None) -> None:
    """Pass the worker's end on: to whoever waits, this process and the worker are one."""
    if status is None or os.WIFSIGNALED(status):
        number = signal.SIGKILL if status is None else os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status or 0))


if __name__ == "__main__":
    main(sys.argv[1:])
