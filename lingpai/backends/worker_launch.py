"""Starting one process of a worker: until its models can be called, or it is clear why they cannot."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from lingpai.backends.worker_output import escaped
from lingpai.backends.worker_process import StatusEvent, WorkerProcess

PROGRESS_AFTER_S: Final = 2.0
PROGRESS_EVERY_S: Final = 1.0


class WorkerModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a worker, as the worker describes it."""

    id: str
    task: str
    description: str | None = None
    aliases: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}  # a JSON schema; Struct copies the default for each instance
    input: dict[str, Any] = {}
    output: dict[str, Any] = {}
    streams: bool = False
    timeout_s: float | None = None
    memory_mb: int | None = None
    replicas: int = 1


class WorkerStartError(Exception):
    """A worker could not be started. `message` says why; `details` is the author's traceback or its last output."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}" if self.details else self.message


class Launch:
    """One attempt to start `target` on a socket. Its process exists from the moment of construction, not running yet.

    `on_event` hears what the process tells, also after it is ready.
    """

    def __init__(
        self,
        target: str,
        socket_path: Path,
        *,
        output: logging.Logger,
        on_event: Callable[["Launch", StatusEvent], None],
        on_progress: Callable[[str], None] | None,
    ) -> None:
        self.process = WorkerProcess(target, socket_path, output=output, on_event=self._hear)
        self.models: tuple[WorkerModel, ...] = ()
        self.files: frozenset[str] = frozenset()
        """The sources it has read so far, as far as it has told."""
        self.seconds = 0.0
        self.memory_mb: int | None = None
        """How much the process may hold, once it has told."""
        self._on_event = on_event
        self._on_progress = on_progress
        self._loading = target
        self._ready: asyncio.Future[tuple[WorkerModel, ...]] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Start the process and wait until it is ready. Raises WorkerStartError, the process gone."""
        began = time.monotonic()
        try:
            await self.process.start()
        except OSError as error:
            target = self.process.target
            raise WorkerStartError(f"No process for `{target}` could be started: {error}.") from error
        progress = asyncio.create_task(self._show_progress(began))
        try:
            self.models = await _first_of(self._ready, self.process)
        except BaseException:
            await self.process.stop()
            raise
        finally:
            progress.cancel()
        self.seconds = time.monotonic() - began

    def _hear(self, event: StatusEvent) -> None:
        kind = event.get("event")
        files = event.get("files")
        if isinstance(files, list):
            self.files = frozenset(file for file in files if isinstance(file, str))
        if kind == "loading":
            self._loading = escaped(str(event.get("model")))
            memory = event.get("memory_mb")
            self.memory_mb = memory if isinstance(memory, int) else None
        elif kind == "ready" and not self._ready.done():
            self._ready.set_result(msgspec.convert(event.get("models"), tuple[WorkerModel, ...]))
        elif kind == "error" and not self._ready.done():
            details = "\n".join(map(escaped, str(event.get("details", "")).splitlines()))
            self._ready.set_exception(WorkerStartError(escaped(str(event.get("message"))), details=details))
        self._on_event(self, event)

    async def _show_progress(self, began: float) -> None:
        await asyncio.sleep(PROGRESS_AFTER_S)
        while self._on_progress is not None:
            self._on_progress(f"loading {self._loading} … {time.monotonic() - began:.0f} s")
            await asyncio.sleep(PROGRESS_EVERY_S)


def describe_exit(code: int) -> str:
    """What an exit code means to an operator."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


async def _first_of(
    ready: "asyncio.Future[tuple[WorkerModel, ...]]", process: WorkerProcess
) -> tuple[WorkerModel, ...]:
    ended = asyncio.create_task(process.wait())
    waited_for: list[asyncio.Future[Any]] = [ready, ended]
    try:
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended
    if ready.done():
        return ready.result()
    raise WorkerStartError(
        f"The worker of `{process.target}` ended while loading: {describe_exit(ended.result())}.",
        details="\n".join(process.last_lines),
    )
