"""What a worker and its children hold: memory and file descriptors, read from /proc. Elsewhere nothing is known.

Memory is what cannot be taken away from a process: anonymous and shared memory. Pages of mapped files (weights) are
the system's to drop, and are not counted. Pages that forked children share are counted once.
"""

import contextlib
import os
import re
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_RESIDENT: Final = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
_PROPORTIONAL: Final = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Vitals:
    """Megabytes (10^6 bytes) held by a worker and its children; descriptors of the worker itself, and their bound."""

    memory_mb: int = 0
    descriptors: int = 0
    most_descriptors: int = 0

    @property
    def is_short_of_descriptors(self) -> bool:
        """Whether nine tenths of them are taken: soon no call can come in."""
        return self.descriptors > 0.9 * self.most_descriptors > 0


def read_vitals(pid: int, *, memory_limit_mb: int | None) -> Vitals:
    """The vitals of process `pid`; zeros where they cannot be read. Blocking: shared memory is looked at page by page
    when the quick sum, which counts it once per process, is over the limit.
    """
    memory = 0
    if memory_limit_mb is not None:
        processes = [pid, *descendants(pid)]
        memory = _sum(processes, "status", _RESIDENT)
        if memory > memory_limit_mb * 10**6 and len(processes) > 1:
            memory = _sum(processes, "smaps_rollup", _PROPORTIONAL) or memory
    try:
        used = len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208  only their number is wanted
        most, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except (OSError, AttributeError):
        return Vitals(memory // 10**6)
    return Vitals(memory // 10**6, used, max(most, 0))


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, as far as they have not been given to another parent."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = [int(child) for text in _children(waiting.pop()) for child in text.split()]
        found += children
        waiting += children
    return found


def _children(pid: int) -> Iterable[str]:
    with contextlib.suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                yield (thread / "children").read_text()


def _sum(processes: Iterable[int], file: str, pattern: re.Pattern[str]) -> int:
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError):
            total += sum(map(int, pattern.findall((_PROC / str(pid) / file).read_text())))
    return total * 1024
