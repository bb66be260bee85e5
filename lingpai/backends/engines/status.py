"""The worker's line to its supervisor: events go out, commands come in, one JSON object per line.

Events:

- ``{"event": "started", "pid": 4711}`` first
- ``{"event": "loading", "model": "acme/embed", "memory_mb": 4000}`` before each model; the bound of all together, or null
- ``{"event": "ready", "models": [{"id", "task", "description", "aliases", "parameters", "streams", …}], "files": […]}``
  once; `files` are the sources that the models were loaded from
- ``{"event": "error", "message": "…", "details": "…", "files": […]}`` when the target cannot be served; the process ends
- ``{"event": "alive"}`` once a second while the event loop runs, with `files` when there are more of them
- ``{"event": "overrun", "model": "acme/embed", "seconds": 40.0}`` when a call does not end and cannot be stopped

Command: ``{"command": "drain", "seconds": 30}``: take no further calls, finish those that run, end.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lingpai.backends.engines.sources import source_files

HEARTBEAT_S: Final = 1.0


class Status:
    """The line."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._received = bytearray()

    def tell(self, event: str, **details: Any) -> bool:
        """Send one event; whether somebody may hear it. That nobody does is not an error: the lifeline ends us."""
        line = memoryview(msgspec.json.encode({"event": event, **details}) + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            return False
        return True

    def listen(self, on_command: Callable[[dict[str, Any]], None]) -> None:
        """Hear commands, from now on, on the running event loop."""
        loop = asyncio.get_running_loop()

        def receive() -> None:
            try:
                data = os.read(self._descriptor, 4096)
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(self._descriptor)
            *lines, self._received[:] = (self._received + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError):
                    on_command(msgspec.json.decode(line, type=dict[str, Any]))

        loop.add_reader(self._descriptor, receive)

    async def beat(self, target: str) -> None:
        """Tell once a second that the event loop runs, until nobody listens."""
        modules, files = len(sys.modules), source_files(target)
        details: dict[str, Any] = {}
        while self.tell("alive", **details):
            details = {}
            await asyncio.sleep(HEARTBEAT_S)
            if len(sys.modules) != modules:
                modules = len(sys.modules)
                found = source_files(target)
                if found != files:
                    details, files = {"files": found}, found
