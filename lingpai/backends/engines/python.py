"""The worker process: ``python -P -m lingpai.backends.engines.python --socket PATH --status-fd N TARGET``.

Loads the target's models, then serves them over HTTP/1.1 on a Unix socket until SIGTERM. What happens meanwhile is
told on the status descriptor (`status.py`).

Standard output and error belong to the author's code.
"""

import argparse
import asyncio
import contextlib
import gc
import io
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from lingpai.backends.engines.asgi import WorkerApp
from lingpai.backends.engines.lifeline import die_with_parent
from lingpai.backends.engines.models import LoadedModel, Models, load_model
from lingpai.backends.engines.sources import source_files
from lingpai.backends.engines.status import Status
from lingpai.backends.engines.targets import load_target
from lingpai.backends.engines.user_errors import TargetError

KEEP_ALIVE_S: Final = 24 * 3600
"""The gateway pools its connections and closes them itself; a timer here would only race with it."""

GRACE_S: Final = 4
"""How long calls may go on after SIGTERM; a second less than the supervisor waits before it kills."""

DRAIN_DELAY_S: Final = 0.2
"""A worker that shall drain takes what is in its socket already: a call that was sent just before."""

OOM_SCORE_ADJUSTMENT: Final = "300"
"""When the system runs out of memory, a worker shall go before the server (proc(5), oom_score_adj)."""


class RecordFormatter(logging.Formatter):
    """Records as the supervisor reads them: the level first, and all lines but the first indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return super().format(record).replace("\n", "\n  ")


class WorkerServer(uvicorn.Server):
    """uvicorn without its signal handling (a signal would be raised again after the end) and with a word at start."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def drain(self, seconds: float) -> None:
        """Take no further calls, and end when those that run are done, or after `seconds`."""
        self.config.timeout_graceful_shutdown = round(seconds)
        asyncio.get_running_loop().call_later(DRAIN_DELAY_S, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


class ErrorOutput:
    """Standard error as it was at the start, whatever the author's code closes or puts in its place."""

    def __init__(self) -> None:
        self._descriptor = os.dup(2)

    def write(self, text: str) -> None:
        """Write all of `text`, if anybody reads it."""
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self._descriptor, left) :]


def main(arguments: list[str] | None = None) -> None:
    """The process, from start to end."""
    options = _options(arguments)
    die_with_parent(options.parent or os.getppid())
    _prepare_output()
    _go_before_the_server()
    status = Status(options.status_fd)
    status.tell("started", pid=os.getpid())
    code = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options, status, ErrorOutput()))
    except TargetError as error:
        files = source_files(options.target, error)
        status.tell("error", message=error.message, details=error.details, files=files)
        code = 1
    # A thread that is still inside an author's function would hold up an ordinary exit.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # closed, broken or replaced by the author
            stream.flush()
    os._exit(code)


async def _serve(options: argparse.Namespace, status: Status, errors: ErrorOutput) -> None:
    loaded: list[LoadedModel] = []
    definitions = load_target(options.target)
    memory_mb = sum(definition.memory_mb or 0 for definition in definitions) or None
    for definition in definitions:
        status.tell("loading", model=definition.id, memory_mb=memory_mb)
        loaded.append(await load_model(definition, options.cache, on_overrun=partial(_tell_overrun, status)))
    descriptions = [model.description() for model in loaded]
    files = source_files(options.target)
    server = WorkerServer(
        _server_config(WorkerApp(Models(loaded), report=errors.write)),
        lambda: status.tell("ready", models=descriptions, files=files),
    )
    # What was loaded stays: it need not be looked through at every collection of what calls leave behind.
    gc.collect()
    gc.freeze()
    status.listen(lambda command: _obey(command, server))
    beat = asyncio.create_task(status.beat(options.target))
    await server.serve([_listen(options.socket)])
    beat.cancel()
    for model in loaded:
        model.runner.close()


def _tell_overrun(status: Status, model: str, seconds: float) -> None:
    status.tell("overrun", model=model, seconds=seconds)


def _obey(command: dict[str, Any], server: WorkerServer) -> None:
    if command.get("command") == "drain":
        server.drain(command["seconds"])


def _server_config(app: WorkerApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def _go_before_the_server() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)


def _listen(path: Path) -> socket.socket:
    """A socket at `path` that only this user can open; one left behind by an earlier worker is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise TargetError(f"{path} exists and is not a socket.")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise TargetError(f"The socket {path} cannot be made: {error.strerror or error}.") from error
    finally:
        os.umask(before)
    return listener


def _prepare_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(RecordFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which then stops us in order


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lingpai-worker", description="Serves one target over a Unix socket."
    )
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--status-fd", type=int, required=True, help="descriptor for status lines")
    parser.add_argument("--parent", type=int, help="process id whose end ends this process")
    parser.add_argument(
        "--cache", type=Path, default=_default_cache(), help="root of the models' cache directories"
    )
    parser.add_argument("target", help="app.py, app.py:name, package.module or package.module:name")
    return parser.parse_args(arguments)


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lingpai" / "models"


if __name__ == "__main__":
    main()
