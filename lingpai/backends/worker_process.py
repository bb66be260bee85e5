"""One run of a worker process: started, listened to, ended. The supervisor in `worker.py` decides when."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from lingpai.backends.worker_output import LevelReader, LineSplitter

RUNTIME: Final = "lingpai.backends.engines.python"
STOP_AFTER_S: Final = 5.0
"""How long a worker may take to end after SIGTERM before it is killed."""

_DRAIN_S: Final = 0.5
_LAST_LINES: Final = 20

StatusEvent = dict[str, Any]


class WorkerProcess:
    """A worker that runs. Its output goes line by line to `output`, its status events to `on_event`.

    The pipes are ours rather than asyncio's: a process that the model started and that outlives it would keep
    asyncio from noticing the end.
    """

    def __init__(
        self,
        target: str,
        socket_path: Path,
        *,
        output: logging.Logger,
        on_event: Callable[[StatusEvent], None],
    ) -> None:
        self.target = target
        self._socket_path = socket_path
        self._output = output
        self._on_event = on_event
        self._lines = LineSplitter()
        self._levels = LevelReader()
        self._status = bytearray()
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> None:
        """Start the process. Raises OSError when the system refuses."""
        lifeline, self._lifeline = os.pipe()
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        try:
            self._process = await self._spawn(lifeline, their_output, their_status)
        except BaseException:
            _close(self._lifeline, output, status)
            raise
        finally:
            _close(lifeline, their_output, their_status)
        readers = asyncio.gather(_read(output, self._take_output), _read(status, self._take_status))
        self._end = asyncio.create_task(self._wait_for_end(readers), name=f"worker {self.target}")

    async def wait(self) -> int:
        """Wait for the end, all output taken; the exit code, or minus the signal."""
        return await asyncio.shield(self._end)

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL for it and what it started if that does not help in time."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self._end), STOP_AFTER_S)
        except TimeoutError:
            self._kill_group()
            await self._end

    async def _spawn(self, lifeline: int, output: int, status: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-P",
                "-m",
                RUNTIME,
            ),  # -P: the current directory must not shadow our own imports
            *("--socket", str(self._socket_path), "--status-fd", str(status), "--parent", str(os.getpid())),
            *("--", self.target),
            stdin=lifeline,
            stdout=output,
            stderr=output,
            pass_fds=(status,),
            start_new_session=True,  # Ctrl-C at the terminal is for the server alone
        )

    async def _wait_for_end(self, readers: asyncio.Future[Any]) -> int:
        code = await self._process.wait()
        # What the model started belongs to it: it may hold memory or devices that the next run needs.
        self._kill_group()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(readers, _DRAIN_S)
        self._log(self._lines.end())
        _close(self._lifeline)
        return code

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _take_output(self, data: bytes) -> None:
        self._log(self._lines.feed(data))

    def _log(self, lines: list[str]) -> None:
        self.last_lines.extend(lines)
        for line in lines:
            level, text = self._levels.read(line)
            self._output.log(level, "%s", text)

    def _take_status(self, data: bytes) -> None:
        *lines, self._status = (self._status + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # the descriptor is the author's to write to, too
                self._on_event(msgspec.json.decode(line, type=StatusEvent))


async def _read(descriptor: int, take: Callable[[bytes], None]) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while data := await reader.read(65536):
            take(data)
    finally:
        transport.close()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
