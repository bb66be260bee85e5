"""A worker never outlives the process that started it.

Two means, because each has a gap: the kernel kills us when the parent's thread ends (Linux only), and a pipe held by
the parent closes when it is gone (noticed by a thread, which code that keeps the interpreter lock would hold back).
"""

import ctypes
import os
import signal
import sys
import threading
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int) -> None:
    """Arrange it; `parent` is the process id of the starter. Standard input becomes empty for everything else."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        _end_everything()
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_wait_for_end, args=(pipe,), name="lifeline", daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    _end_everything()


def _end_everything() -> None:
    if os.getpgrp() == os.getpid():  # our own group: take the processes that the model started along
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
