"""Keeps one process of a worker running: started, watched, restarted with back-off, replaced, stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from lingpai.backends.worker_launch import Launch, WorkerModel, WorkerStartError, describe_exit
from lingpai.backends.worker_output import escaped
from lingpai.backends.worker_process import StatusEvent, WorkerProcess
from lingpai.backends.worker_watch import DRAIN_S, Fault, killed_far_over, watch
from lingpai.socket_paths import LONGEST

WorkerState = Literal["loading", "ready", "restarting", "stopped"]

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A process that ran this long starts over with the shortest delay when it dies."""

OVERRUN_DRAIN_S: Final = 5.0
"""How long other calls may go on in a process where one will certainly not end."""


class UnixBackend:
    """What the catalog asks of any backend, for one that is reached at a socket's path."""

    kind: Literal["worker"] = "worker"
    host = "localhost"
    port = 0
    is_tls = False
    path_prefix = "/v1"
    headers: Mapping[str, str] = MappingProxyType({})
    is_replicated = False
    """Whether there are several of it, so that `pick` has to be asked where a call goes."""


@dataclass(frozen=True, slots=True)
class _Reload:
    """The sources have changed; `done` is told whether a process with the new ones could be started."""

    done: "asyncio.Future[None]"

    def tell(self, error: WorkerStartError | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Replica(UnixBackend):
    """One process of a target, always the same to its callers: the socket's path stays through restarts."""

    def __init__(
        self,
        target: str,
        *,
        socket_path: Path,
        name: str,
        log: logging.Logger,
        on_change: Callable[["Replica"], None],
        on_replaced: Callable[["Replica"], None] = lambda _: None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.socket_path = socket_path
        self.replicas: tuple[Replica, ...] = ()
        self._path_beside = socket_path.with_suffix(".new")
        self.models: tuple[WorkerModel, ...] = ()
        self.state: WorkerState = "stopped"
        self.files: frozenset[str] = frozenset()
        """The sources of what serves, and of the attempts to replace it that failed since."""
        self.has_failed = False
        """Whether the last attempt to start a process failed."""
        self._log = log
        self._output = logging.getLogger(f"lingpai.models.{name}")
        self._on_change = on_change
        self._on_replaced = on_replaced
        self._on_progress = on_progress
        self._serving: Launch | None = None
        self._starting: Launch | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._wanted: asyncio.Queue[Fault | _Reload] = asyncio.Queue()
        self._next_attempt = 0.0
        self._load_seconds = 0.0

    def pick(self, _: object) -> "Replica":
        """Itself."""
        return self

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        launch = self._serving or self._starting
        return launch.process.pid if launch is not None else None

    @property
    def is_mute(self) -> bool:
        """Whether its process has most likely just ended, although `state` does not say so yet."""
        return self._serving is not None and self._serving.process.is_mute

    @property
    def retry_after(self) -> float:
        """Seconds after which a call is worth another try: 0 when ready, else at least one."""
        if self.state == "ready":
            return 0.0
        return max(1.0, self._next_attempt + self._load_seconds - time.monotonic())

    async def start(self) -> None:
        """Start the process and wait until its models can be called. Raises WorkerStartError; stopped then."""
        self._check_socket_path()
        self._set_state("loading")
        try:
            await self._launch()
        except BaseException:
            self._set_state("stopped")
            raise
        self._set_state("ready")
        self._supervision = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")
        self._supervision.add_done_callback(self._report_fault)

    async def stop(self) -> None:
        """End the process, gently first. Calling it again, or before a start, does nothing."""
        supervision, self._supervision = self._supervision, None
        tasks = [task for task in (supervision, *self._draining) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._serving is not None:
            await self._serving.process.stop()
            self._serving = None
        if self.state != "stopped":
            self._set_state("stopped")
        for path in (self.socket_path, self._path_beside):
            if path.is_socket():
                path.unlink(missing_ok=True)

    async def reload(self) -> None:
        """Replace the process by one that has read its files anew; it serves until that one does.

        Raises WorkerStartError when the new one does not start: the old one stays, if there is one.
        """
        wanted = _Reload(asyncio.get_running_loop().create_future())
        self._wanted.put_nowait(wanted)
        await wanted.done

    # -- supervision

    async def _supervise(self) -> None:
        back_off = BackOff()
        while True:
            began = time.monotonic()
            while self._serving is not None:
                await self._until_away(self._serving)
            if time.monotonic() - began >= HEALTHY_AFTER_S:
                back_off.reset()
            await self._restart(back_off)
            self._set_state("ready")
            self._log.warning("worker %s is back", self.name)

    async def _until_away(self, launch: Launch) -> None:
        """Watch the process until it has ended, or another one serves in its place."""
        wanted = await self._until_end_or_wanted(launch.process)
        if isinstance(wanted, _Reload):
            await self._reload(launch, wanted)
            return
        self._next_attempt = time.monotonic() + FIRST_DELAY_S
        if wanted is None:
            code = await launch.process.wait()
            self._log.error("worker %s ended: %s", self.name, describe_exit(code))
        else:
            self._log.error("worker %s is restarted: %s", self.name, wanted.reason)
            self._set_state("restarting")  # first, so that no further call is sent to it
            await (self._drain(launch, wanted.drain_s) if wanted.drain_s else launch.process.kill())
        self._serving = None

    async def _until_end_or_wanted(self, process: WorkerProcess) -> Fault | _Reload | None:
        """None when the process has ended."""
        ended = asyncio.ensure_future(process.wait())
        wanted = asyncio.ensure_future(self._wanted.get())
        fault = asyncio.create_task(
            watch(process, self.models, name=self.name, log=self._log), name=f"watch {self.name}"
        )
        try:
            await asyncio.wait({ended, wanted, fault}, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done():
                return wanted.result()
            return fault.result() if fault.done() and not ended.done() else None
        finally:
            for task in (ended, wanted, fault):
                task.cancel()

    async def _restart(self, back_off: "BackOff") -> None:
        while True:
            delay = back_off.next_delay()
            self._next_attempt = time.monotonic() + delay
            if self.state != "restarting":
                self._set_state("restarting")
            self._log.warning("worker %s restarts in %.1f s", self.name, delay)
            wanted = await self._sleep_until_reload(delay)
            try:
                await self._launch()
            except WorkerStartError as error:
                self._log.error("worker %s did not restart: %s", self.name, error)
                if wanted is not None:
                    wanted.tell(error)
            else:
                if wanted is not None:
                    wanted.tell()
                return

    async def _sleep_until_reload(self, delay: float) -> _Reload | None:
        """Sleep; changed sources end it at once, and want to be told what comes of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while True:
                    wanted = await self._wanted.get()
                    if isinstance(wanted, _Reload):
                        return wanted
        return None

    async def _reload(self, old: Launch, wanted: _Reload) -> None:
        def killed(fault: Fault) -> None:
            self._log_kill("while another one is loaded to replace it", fault)
            self._set_state("restarting")

        try:
            async with killed_far_over(old.process, lambda: old.memory_mb, on_kill=killed):
                await self._launch(self._path_beside)
        except WorkerStartError as error:
            wanted.tell(error)
            return
        self._path_beside.replace(self.socket_path)  # who connects from now on finds the new one
        self._set_state("ready")
        self._on_replaced(self)  # before the old one drains: it closes connections that it takes for idle
        task = asyncio.create_task(self._end_old(old), name=f"drain {self.name}")
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
        wanted.tell()

    async def _end_old(self, old: Launch) -> None:
        try:
            await self._drain(old, DRAIN_S)
        except asyncio.CancelledError:
            await old.process.kill()
            raise

    async def _drain(self, launch: Launch, seconds: float) -> None:
        killed = partial(self._log_kill, "while its calls finish")
        async with killed_far_over(launch.process, lambda: launch.memory_mb, on_kill=killed):
            await launch.process.drain(seconds)

    def _log_kill(self, when: str, fault: Fault) -> None:
        self._log.error("worker %s is killed %s: %s", self.name, when, fault.reason)

    # -- one process

    async def _launch(self, socket_path: Path | None = None) -> None:
        """Have a new process serve. Raises WorkerStartError, the new one gone and the old one as it was."""
        launch = self._starting = Launch(
            self.target,
            socket_path or self.socket_path,
            output=self._output,
            on_event=self._hear,
            on_progress=self._on_progress,
        )
        try:
            await self._run(launch)
        except BaseException:
            self.has_failed = True
            self.files |= launch.files
            raise
        finally:
            self._starting = None
        self.has_failed = False
        self.files, self.models = launch.files, launch.models
        self._load_seconds = launch.seconds
        self._serving = launch
        self._forget_faults()

    async def _run(self, launch: Launch) -> None:
        faults: list[Fault] = []
        try:
            async with killed_far_over(launch.process, lambda: launch.memory_mb, on_kill=faults.append):
                await launch.run()
        except WorkerStartError as error:
            for fault in faults:
                raise WorkerStartError(
                    f"The worker of `{self.target}` was killed while loading: {fault.reason}. "
                    "Allow its models more with `memory_mb`, or load less."
                ) from error
            raise

    def _forget_faults(self) -> None:
        """Those of the process before."""
        waiting = [self._wanted.get_nowait() for _ in range(self._wanted.qsize())]
        for wanted in waiting:
            if isinstance(wanted, _Reload):
                self._wanted.put_nowait(wanted)

    def _hear(self, launch: Launch, event: StatusEvent) -> None:
        if launch is not self._serving:
            return
        self.files |= launch.files
        if event.get("event") == "overrun":
            reason = f"a call of {escaped(str(event.get('model')))} does not end"
            self._wanted.put_nowait(Fault(reason, OVERRUN_DRAIN_S))

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
        self._on_change(self)


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
