"""Starts background tasks, keeps hold of them, notices when they fail, and ends them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger("lingpai.jobs")


class JobRunner:
    """The tasks of one server. A task that fails is reported at once, not when somebody awaits it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in the background."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def every(
        self,
        seconds: float,
        name: str,
        work: Callable[[], Awaitable[object] | None],
        *,
        first_after: float | None = None,
    ) -> None:
        """Call `work` again and again, `seconds` apart, at first after `first_after` seconds (else as many).

        A failure is logged and the next round goes on.
        """
        first = seconds if first_after is None else first_after
        self.start(name, _repeat(first, seconds, name, work))

    async def stop(self) -> None:
        """Cancel everything and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed: %s", task.get_name(), error, exc_info=error)


async def _repeat(
    first: float, seconds: float, name: str, work: Callable[[], Awaitable[object] | None]
) -> None:
    await asyncio.sleep(first)
    while True:
        try:
            result = work()
            if result is not None:
                await result
        except Exception:  # the outermost edge of a job: one bad round must not end it
            log.exception("background job %s failed; it will be tried again in %g s", name, seconds)
        await asyncio.sleep(seconds)
