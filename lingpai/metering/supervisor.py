"""Keeps the ingester running, and knows how far it has come."""

import asyncio
import contextlib
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

from lingpai.metering.segments import START, Position

_log = logging.getLogger("lingpai.metering")

_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30.0
_HEALTHY_AFTER_S: Final = 60.0


class IngesterProcess:
    """The child process that loads the journal in `directory` into the SQLite file `database_path`.

    It is started again with growing delays when it ends by itself; records wait in the journal meanwhile. It ends by
    itself when this process dies, after loading what is there.

    `position` is how far the journal is loaded. `skipped` damaged places and `loaded` records were reported since this
    object was made: both may fall behind a little when a child is killed, the database does not.
    """

    def __init__(self, directory: Path, database_path: Path) -> None:
        self.position: Position = START
        self.skipped = 0
        self.loaded = 0
        self._arguments = (str(directory), str(database_path))
        self._waiting: list[tuple[Position, asyncio.Future[None]]] = []
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is no child."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the child and keep it running. Returns at once; `wait_for` tells when it has come somewhere."""
        self._keeper = asyncio.create_task(self._keep_running(), name="metering-ingester")

    async def wait_for(self, position: Position, timeout: float) -> bool:
        """Wait until everything before `position` is in the database; False when that takes over `timeout` seconds."""
        if self.position >= position:
            return True
        arrival = asyncio.get_running_loop().create_future()
        entry = (position, arrival)
        self._waiting.append(entry)
        self._hurry()
        try:
            await asyncio.wait_for(arrival, timeout)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def stop(self, timeout: float = 10.0) -> None:
        """Let the child load what is in the journal and end; kill it when that takes over `timeout` seconds.

        Nothing is lost by killing it: the next start continues where it was.
        """
        self._stopping.set()
        if self._keeper is None:
            return
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        done, _ = await asyncio.wait([self._keeper], timeout=timeout)
        if not done and self._process is not None:
            _log.warning("the ingester takes too long to finish; the rest is loaded at the next start")
            self._process.kill()
        await asyncio.wait([self._keeper])

    def _hurry(self) -> None:
        """Wake the child, which otherwise looks every 50 ms."""
        stdin = None if self._process is None else self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(b"\n")

    async def _keep_running(self) -> None:
        delay = _FIRST_DELAY_S
        while True:
            started = time.monotonic()
            reason = await self._run_once()
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                delay = _FIRST_DELAY_S
            if await self._stops_within(0):
                return
            _log.error("the ingester ended (%s); starting it again in %.1f s", reason, delay)
            if await self._stops_within(delay):
                return
            delay = min(delay * 2, _LONGEST_DELAY_S)

    async def _stops_within(self, seconds: float) -> bool:
        if seconds and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _run_once(self) -> str:
        """Run one child to its end; why it ended."""
        # -P: a module in the folder that the server was started from must not stand in for one of ours
        command = (sys.executable, "-P", "-m", "lingpai.metering.ingester", *self._arguments)
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except OSError as error:
            return f"it could not be started: {error}"
        self._process = process
        if self._stopping.is_set() and process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.gather(self._follow_progress(process), self._follow_log(process))
            return f"exit status {await process.wait()}"
        except Exception as error:  # noqa: BLE001  an outermost edge: whatever it said, records must go on being loaded
            _log.exception("what the ingester says cannot be followed")
            return f"it was stopped: {error!r}"
        finally:
            self._process = None
            if process.returncode is None:  # it would hold the lock against the next one
                process.kill()
                await process.wait()

    async def _follow_progress(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101  a pipe was asked for
        async for line in process.stdout:
            segment, offset, skipped, loaded = map(int, line.split())
            self.position = (segment, offset)
            self.skipped += skipped
            self.loaded += loaded
            self._resolve()

    async def _follow_log(self, process: Process) -> None:
        assert process.stderr is not None  # noqa: S101  a pipe was asked for
        async for line in process.stderr:
            _log.warning("%s", line.decode(errors="replace").rstrip())

    def _resolve(self) -> None:
        for position, arrival in self._waiting:
            if position <= self.position and not arrival.done():
                arrival.set_result(None)
