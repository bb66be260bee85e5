"""One run of a worker process: started, listened to, ended. The supervisor in `worker_replica.py` decides when.

What is started is the guardian (`engines/guardian.py`), and the worker by it: so whatever the worker started ends when
either side does.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from lingpai.backends.engines import guardian
from lingpai.backends.worker_output import WorkerOutput

RUNTIME: Final = "lingpai.backends.engines.python"
NOT_FOR_MODELS: Final = frozenset({"LINGPAI_PEPPER", "LINGPAI_ROOT_KEY"})
"""Variables of the server that a model's code is not given: with them, a copy of the database could be read."""
STOP_AFTER_S: Final = 5.0
"""How long a worker may take to end after SIGTERM before it is killed."""

_DRAIN_S: Final = 0.5
_GUARDIAN_S: Final = 5.0
_PAUSE_S: Final = 0.01
"""Between reads of output that is left out anyway: it must not keep the server busy."""

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
        self.socket_path = socket_path
        self.pid: int | None = None
        """The worker's own process, once it has told."""
        self.heard_at = 0.0
        """When the worker last said something, by the event loop's clock."""
        self.is_mute = False
        """Whether its status line is closed: most likely it has ended, and this is the first sign of it."""
        self._logger = output
        self._on_event = on_event
        self._output = WorkerOutput()
        self._status = bytearray()

    @property
    def last_lines(self) -> deque[str]:
        """The last lines of its output."""
        return self._output.last_lines

    async def start(self) -> None:
        """Start the process. Raises OSError when the system refuses."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            lifeline, self._lifeline = os.pipe()
            theirs.callback(os.close, lifeline)
            ours.callback(self._cut_lifeline)
            output, their_output = os.pipe()
            theirs.callback(os.close, their_output)
            ours.callback(os.close, output)
            status, their_status = socket.socketpair()
            theirs.callback(their_status.close)
            ours.callback(status.close)
            self._process = await self._spawn(lifeline, their_output, their_status.fileno())
            ours.pop_all()  # it runs: they stay open
        self.heard_at = asyncio.get_running_loop().time()
        status_lines, self._commands = await asyncio.open_unix_connection(sock=status)
        readers = asyncio.gather(self._read_output(output), self._read_status(status_lines))
        self._end = asyncio.create_task(self._wait_for_end(readers), name=f"worker {self.target}")

    async def wait(self) -> int:
        """Wait for the end, all output taken; the exit code, or minus the signal."""
        return await asyncio.shield(self._end)

    async def drain(self, seconds: float) -> None:
        """Have the calls that run finished, no further ones taken, and end it; kill it after `seconds`."""
        command = {"command": "drain", "seconds": seconds}
        with contextlib.suppress(OSError, RuntimeError):
            self._commands.write(msgspec.json.encode(command) + b"\n")
        await self._end_within(seconds)

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL if that does not help in time."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._end_within(STOP_AFTER_S)

    async def kill(self) -> None:
        """End the process and what it started, now."""
        self._cut_lifeline()
        try:
            await asyncio.wait_for(asyncio.shield(self._end), _GUARDIAN_S)
        except TimeoutError:  # the guardian was stopped, or worse
            self._kill_groups()
            await self._end

    def _kill_groups(self) -> None:
        for group in {self._process.pid, self.pid or self._process.pid}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    async def _end_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._end), seconds)
        except TimeoutError:
            await self.kill()

    async def _spawn(self, lifeline: int, output: int, status: int) -> asyncio.subprocess.Process:
        python = sys.executable
        return await asyncio.create_subprocess_exec(
            *(python, "-I", "-S", guardian.__file__),
            *(python, "-P", "-m", RUNTIME),  # -P: the current directory must not shadow our own imports
            *("--socket", str(self.socket_path), "--status-fd", str(status), "--parent", "{guardian}"),
            *("--", self.target),
            stdin=lifeline,
            stdout=output,
            stderr=output,
            pass_fds=(status,),
            env={name: value for name, value in os.environ.items() if name not in NOT_FOR_MODELS},
            start_new_session=True,  # Ctrl-C at the terminal is for the server alone
        )

    async def _wait_for_end(self, readers: asyncio.Future[Any]) -> int:
        code = await self._process.wait()
        if code == -signal.SIGKILL:
            self._kill_groups()  # perhaps it was the guardian, and nobody has looked after the rest
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(readers, _DRAIN_S)
        self._log(self._output.end())
        self._cut_lifeline()
        self._commands.close()
        return code

    def _cut_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def _read_output(self, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            while data := await reader.read(65536):
                self._log(self._output.feed(data))
                if self._output.is_too_much:
                    await asyncio.sleep(_PAUSE_S)
        finally:
            transport.close()

    def _log(self, lines: list[tuple[int, str]]) -> None:
        for level, text in lines:
            self._logger.log(level, "%s", text)

    async def _read_status(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self._take_status(data)
        self.is_mute = True

    def _take_status(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        *lines, self._status = (self._status + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # the descriptor is the author's to write to, too
                self._take_event(msgspec.json.decode(line, type=StatusEvent))

    def _take_event(self, event: StatusEvent) -> None:
        if event.get("event") == "started" and isinstance(event.get("pid"), int) and self.pid is None:
            self.pid = event["pid"]
        self._on_event(event)
