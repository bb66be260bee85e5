"""Keeps one worker process running: started, watched, restarted with back-off, stopped.

    worker = Worker("app.py", socket_path=path, name="app", log=log)
    await worker.start()          # raises WorkerStartError with the author's traceback
    worker.models                 # what it serves, over HTTP on `socket_path`
    await worker.stop()

The supervisor only watches; calls go straight to the socket, through the same code as to any other engine.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from lingpai.backends.worker_output import escaped
from lingpai.backends.worker_process import StatusEvent, WorkerProcess
from lingpai.socket_paths import LONGEST

WorkerState = Literal["loading", "ready", "restarting", "stopped"]

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A worker that ran this long starts over with the shortest delay when it dies."""

PROGRESS_AFTER_S: Final = 2.0
PROGRESS_EVERY_S: Final = 1.0


class WorkerModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a worker, as the worker describes it."""

    id: str
    task: str
    description: str | None = None
    aliases: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}  # a JSON schema; Struct copies the default for each instance
    streams: bool = False


class WorkerStartError(Exception):
    """A worker could not be started. `message` says why; `details` is the author's traceback or its last output."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}" if self.details else self.message


class Worker:
    """One target in one supervised process.

    `socket_path` lies in a directory that only this user may enter; the worker makes the socket. What the models
    print is logged under ``lingpai.models.<name>``, what they log at its own level. `on_state` hears each change of state, `on_progress` a line for
    people at least once a second while loading takes longer than two seconds.
    """

    # What the catalog asks of any backend; the connection goes to `socket_path`.
    kind: Literal["worker"] = "worker"
    host = "localhost"
    port = 0
    is_tls = False
    path_prefix = "/v1"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        target: str,
        *,
        socket_path: Path,
        name: str,
        log: logging.Logger,
        on_state: Callable[[WorkerState], None] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.socket_path = socket_path
        self.models: tuple[WorkerModel, ...] = ()
        self.state: WorkerState = "stopped"
        self._log = log
        self._output = logging.getLogger(f"lingpai.models.{name}")
        self._on_state = on_state
        self._on_progress = on_progress
        self._process: WorkerProcess | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._loading = target
        self._load_seconds = 0.0
        self._next_attempt = 0.0

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        return self._process.pid if self._process is not None else None

    @property
    def retry_after(self) -> float:
        """Seconds after which a call is worth another try: 0 when ready, else at least one."""
        if self.state == "ready":
            return 0.0
        return max(1.0, self._next_attempt + self._load_seconds - time.monotonic())

    async def start(self) -> None:
        """Start the process and wait until its models can be called. Raises WorkerStartError; stopped then."""
        if self.state != "stopped":
            raise RuntimeError(f"the worker of {self.target} runs already")
        self._check_socket_path()
        self._set_state("loading")
        try:
            process = await self._launch()
        except BaseException:
            self._set_state("stopped")
            raise
        self._set_state("ready")
        self._supervision = asyncio.create_task(self._supervise(process), name=f"supervise {self.name}")
        self._supervision.add_done_callback(self._report_fault)

    async def stop(self) -> None:
        """End the process, gently first. Calling it again, or before a start, does nothing."""
        supervision, self._supervision = self._supervision, None
        if supervision is not None:
            supervision.cancel()
            await asyncio.wait([supervision])
        if self._process is not None:
            await self._process.stop()
            self._process = None
        if self.state != "stopped":
            self._set_state("stopped")
        if self.socket_path.is_socket():
            self.socket_path.unlink(missing_ok=True)

    async def _supervise(self, process: WorkerProcess) -> None:
        back_off = BackOff()
        while True:
            started = time.monotonic()
            code = await process.wait()
            self._process = None
            if time.monotonic() - started >= HEALTHY_AFTER_S:
                back_off.reset()
            self._log.error("worker %s ended: %s", self.name, describe_exit(code))
            process = await self._restart(back_off)
            self._set_state("ready")
            self._log.warning("worker %s is back", self.name)

    async def _restart(self, back_off: "BackOff") -> WorkerProcess:
        while True:
            delay = back_off.next_delay()
            self._next_attempt = time.monotonic() + delay
            if self.state != "restarting":
                self._set_state("restarting")
            self._log.warning("worker %s restarts in %.1f s", self.name, delay)
            await asyncio.sleep(delay)
            try:
                return await self._launch()
            except WorkerStartError as error:
                self._log.error("worker %s did not restart: %s", self.name, error)

    async def _launch(self) -> WorkerProcess:
        """A process whose models can be called. Raises WorkerStartError, the process gone."""
        started = time.monotonic()
        ready: asyncio.Future[tuple[WorkerModel, ...]] = asyncio.get_running_loop().create_future()
        process = WorkerProcess(
            self.target,
            self.socket_path,
            output=self._output,
            on_event=lambda event: self._hear(event, ready),
        )
        try:
            await process.start()
        except OSError as error:
            raise WorkerStartError(f"No process for `{self.target}` could be started: {error}.") from error
        self._process, self._loading = process, self.target
        progress = asyncio.create_task(self._show_progress(started))
        try:
            self.models = await _first_of(ready, process)
        except BaseException:
            await process.stop()
            self._process = None
            raise
        finally:
            progress.cancel()
        self._load_seconds = time.monotonic() - started
        return process

    def _hear(self, event: StatusEvent, ready: "asyncio.Future[tuple[WorkerModel, ...]]") -> None:
        kind = event.get("event")
        if kind == "loading":
            self._loading = escaped(str(event.get("model")))
        elif ready.done():
            return
        elif kind == "ready":
            ready.set_result(msgspec.convert(event.get("models"), tuple[WorkerModel, ...]))
        elif kind == "error":
            details = "\n".join(map(escaped, str(event.get("details", "")).splitlines()))
            ready.set_exception(WorkerStartError(escaped(str(event.get("message"))), details=details))

    async def _show_progress(self, started: float) -> None:
        await asyncio.sleep(PROGRESS_AFTER_S)
        while self._on_progress is not None:
            self._on_progress(f"loading {self._loading} … {time.monotonic() - started:.0f} s")
            await asyncio.sleep(PROGRESS_EVERY_S)

    def _check_socket_path(self) -> None:
        length = len(bytes(self.socket_path.absolute()))
        if length > LONGEST:
            raise WorkerStartError(
                f"The socket path {self.socket_path} has {length} bytes, and the system allows "
                f"{LONGEST}. Choose a data directory with a shorter path."
            )

    def _report_fault(self, supervision: asyncio.Task[None]) -> None:
        if not supervision.cancelled() and supervision.exception() is not None:
            self._log.error("worker %s is no longer watched", self.name, exc_info=supervision.exception())

    def _set_state(self, state: WorkerState) -> None:
        self.state = state
        if self._on_state is not None:
            self._on_state(state)


class BackOff:
    """Delays between restarts: 0.5 s, doubling up to 30 s."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY_S

    def next_delay(self) -> float:
        """The delay before the next attempt."""
        delay, self._next = self._next, min(self._next * 2, LONGEST_DELAY_S)
        return delay

    def reset(self) -> None:
        """Begin with the shortest again."""
        self._next = FIRST_DELAY_S


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
