"""What a worker's process may not do: hold too much, or be silent for too long."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lingpai.backends.worker_launch import WorkerModel
from lingpai.backends.worker_process import WorkerProcess
from lingpai.backends.worker_vitals import read_vitals

LOOK_EVERY_S: Final = 1.0

DRAIN_S: Final = 30.0
"""How long calls may go on in a process that is replaced."""

MEMORY_MARGIN: Final = 1.25
"""So much over its limit, a process is not given the time to drain."""

SILENCE_WARNING_S: Final = 30.0
SILENCE_GRACE_S: Final = 15.0
"""How long a process may be silent beyond its longest time-out: something holds its event loop or the interpreter."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a process has to be replaced, and how long its calls may go on (0: not at all)."""

    reason: str
    drain_s: float = 0.0


async def watch(
    process: WorkerProcess, models: Sequence[WorkerModel], *, name: str, log: logging.Logger
) -> Fault:
    """Look after a process until there is a fault."""
    memory = sum(model.memory_mb or 0 for model in models) or None
    longest_silence = _longest_silence(models)
    is_warned = False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        silence = asyncio.get_running_loop().time() - process.heard_at
        if silence > longest_silence:
            return Fault(f"it has not answered for {silence:.0f} s")
        if silence > SILENCE_WARNING_S and not is_warned:
            what = "its code holds the interpreter or the event loop"
            log.warning("worker %s has not answered for %.0f s: %s", name, silence, what)
        is_warned = silence > SILENCE_WARNING_S
        fault = await _holds_too_much(process, memory)
        if fault is not None:
            return fault


@contextlib.asynccontextmanager
async def killed_far_over(
    process: WorkerProcess, limit_mb: Callable[[], int | None], *, on_kill: Callable[[Fault], None]
) -> AsyncIterator[None]:
    """Inside the block, the process is killed when it holds so much that it must not go on; `on_kill` is told before.

    For the times in which it is not watched: while it loads, and while it finishes its calls.
    """
    task = asyncio.create_task(_kill_far_over(process, limit_mb, on_kill), name=f"watch {process.target}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _kill_far_over(
    process: WorkerProcess, limit_mb: Callable[[], int | None], on_kill: Callable[[Fault], None]
) -> None:
    fault = None
    while fault is None or fault.drain_s:
        await asyncio.sleep(LOOK_EVERY_S)
        fault = await _holds_too_much(process, limit_mb())
    on_kill(fault)
    await process.kill()


def _longest_silence(models: Sequence[WorkerModel]) -> float:
    """Seconds; without a time-out on every model nobody has said that its code may not take for ever."""
    timeouts = [model.timeout_s for model in models if model.timeout_s is not None]
    return max(timeouts) + SILENCE_GRACE_S if timeouts and len(timeouts) == len(models) else float("inf")


async def _holds_too_much(process: WorkerProcess, memory: int | None) -> Fault | None:
    if process.pid is None:
        return None
    vitals = await asyncio.to_thread(read_vitals, process.pid, memory_limit_mb=memory)
    if memory is not None and vitals.memory_mb > memory:
        drain = DRAIN_S if vitals.memory_mb <= memory * MEMORY_MARGIN else 0.0
        return Fault(f"it holds {vitals.memory_mb} MB, and may hold {memory}", drain)
    if vitals.is_short_of_descriptors:
        held = f"{vitals.descriptors} of {vitals.most_descriptors}"
        return Fault(f"it holds {held} file descriptors", DRAIN_S)
    return None
