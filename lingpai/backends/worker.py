"""One target in one or several supervised processes, which look like one backend.

    worker = Worker("app.py", socket_path=path, name="app", log=log)
    await worker.start()          # raises WorkerStartError with the author's traceback
    worker.models                 # what it serves, over HTTP on `socket_path`
    await worker.stop()

The supervisor only watches; calls go straight to the sockets, through the same code as to any other engine. With
several replicas, `pick` says which one a call had better go to.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

from lingpai.backends.engines.sources import source_folder
from lingpai.backends.engines.targets import parse_target
from lingpai.backends.worker_launch import WorkerModel, WorkerStartError
from lingpai.backends.worker_reload import SourceWatch
from lingpai.backends.worker_replica import Replica, UnixBackend, WorkerState

_LAST_RESORT: Final = 1 << 30
"""More calls than any replica has: one that has most likely ended has the fewest, and would get them all."""

__all__ = ["Worker", "WorkerModel", "WorkerStartError", "WorkerState"]


class Worker(UnixBackend):
    """The processes of one target.

    `socket_path` lies in a directory that only this user may enter; the worker makes the socket, and further ones
    beside it when the target's models want replicas (`replicas` overrules them). What the models print is logged under
    ``lingpai.models.<name>``, what they log at its own level. `on_state` hears each change of state, and "ready" again
    when other models are served; `on_replaced` of a replica at whose socket a new process answers, while the old one
    still finishes its calls and takes what was sent to it; `on_progress` a line for people at least once a second
    while loading takes longer than two seconds. It is ready when one replica is.
    """

    def __init__(
        self,
        target: str,
        *,
        socket_path: Path,
        name: str,
        log: logging.Logger,
        on_state: Callable[[WorkerState], None] | None = None,
        on_replaced: Callable[[Replica], None] = lambda _: None,
        on_progress: Callable[[str], None] | None = None,
        replicas: int | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.socket_path = socket_path
        self.models: tuple[WorkerModel, ...] = ()
        self.state: WorkerState = "stopped"
        self.replicas: tuple[Replica, ...] = ()
        self._wanted_replicas = replicas
        self._log = log
        self._on_state = on_state
        self._on_replaced = on_replaced
        self._on_progress = on_progress
        self._turn = 0
        self._is_stopping = False
        self._reloading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The first replica's running process, or None."""
        return self.replicas[0].pid if self.replicas else None

    @property
    def retry_after(self) -> float:
        """Seconds after which a call is worth another try: 0 when ready, else at least one."""
        return min((replica.retry_after for replica in self.replicas), default=1.0)

    def pick(self, busy: Callable[[Replica], int]) -> Replica:
        """The replica for one more call: a ready one with the fewest calls as `busy` counts them, in turns among equals.

        Without a ready one, the first: the call will fail as it would with one process.
        """
        replicas = self.replicas
        if len(replicas) == 1:
            return replicas[0]
        self._turn = turn = (self._turn + 1) % len(replicas)
        best, fewest = replicas[0], -1
        for replica in replicas[turn:] + replicas[:turn]:
            if replica.state == "ready":
                calls = busy(replica) + (_LAST_RESORT if replica.is_mute else 0)
                if calls < fewest or fewest < 0:
                    best, fewest = replica, calls
        return best

    async def start(self) -> None:
        """Start the processes and wait until all can be called. Raises WorkerStartError; stopped then."""
        if self.state != "stopped":
            raise RuntimeError(f"the worker of {self.target} runs already")
        self._is_stopping = False
        first = self._make_replica(1)
        self.replicas = (first,)
        try:
            await first.start()
            count = self._wanted_replicas or max((model.replicas for model in self.models), default=1)
            further = [self._make_replica(number) for number in range(2, count + 1)]
            self.replicas = (first, *further)
            self.is_replicated = count > 1
            await _all(replica.start() for replica in further)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the processes, gently first. Calling it again, or before a start, does nothing."""
        self._is_stopping = True
        reloading, self._reloading = self._reloading, None
        if reloading is not None:
            reloading.cancel()
            await asyncio.wait([reloading])
        await _all(replica.stop() for replica in self.replicas)

    def reload_on_change(self) -> None:
        """From now on, watch the sources and put new processes in place when they change (for development)."""
        if self._reloading is None:
            watch = SourceWatch(self._watched_files)
            self._reloading = asyncio.create_task(self._reload_on_change(watch), name=f"reload {self.name}")

    async def _reload_on_change(self, watch: SourceWatch) -> None:
        while True:
            changed = await watch.changed()
            names = ", ".join(Path(file).name for file in changed)
            self._log.info("worker %s: %s changed, loading it anew", self.name, names)
            try:
                # One first: when that fails, the others are not tried.
                first, *others = self.replicas
                await first.reload()
                await _all(replica.reload() for replica in others)
            except WorkerStartError as error:
                self._log.error("worker %s goes on with the code from before: %s", self.name, error)
            else:
                self._log.info("worker %s serves the new code", self.name)

    def _watched_files(self) -> set[str]:
        """The sources, and all beside them: code that cannot be loaded may import files not known yet."""
        folder = source_folder(parse_target(self.target))
        known = {file for replica in self.replicas for file in replica.files}
        return known | {str(path) for path in folder.glob("*.py")} if self._has_failed() else known

    def _has_failed(self) -> bool:
        return any(replica.has_failed for replica in self.replicas)

    def _make_replica(self, number: int) -> Replica:
        path = self.socket_path
        return Replica(
            self.target,
            socket_path=path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}"),
            name=self.name if number == 1 else f"{self.name}#{number}",
            log=self._log,
            on_change=self._replica_changed,
            on_replaced=self._on_replaced,
            on_progress=self._on_progress,
        )

    def _replica_changed(self, replica: Replica) -> None:
        states = {each.state for each in self.replicas}
        if self._is_stopping and states != {"stopped"}:
            return  # one that was to restart is no news while all of them end
        ranking: tuple[WorkerState, ...] = ("ready", "loading", "restarting", "stopped")
        state = next(state for state in ranking if state in states)
        is_new = state != self.state or (replica.state == "ready" and replica.models != self.models)
        self.state = state
        if replica.state == "ready":
            self.models = replica.models
        if is_new and self._on_state is not None:
            self._on_state(state)


async def _all(doings: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all to the end, then raise the first error if there was one."""
    outcomes = await asyncio.gather(*doings, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
