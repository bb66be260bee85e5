"""One server process, from its settings to its end: signals, reloading, the sentence about what went wrong."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from lingpai.app import Application, default_targets
from lingpai.backends.worker import Worker
from lingpai.errors import LingpaiError
from lingpai.process_setup import StartError, tune_garbage_collection
from lingpai.serving.announcement import announce
from lingpai.serving.options import ServeOptions
from lingpai.settings import ModelSettings, Settings, SettingsError, load_settings
from lingpai.storage.migrate import NewerDatabaseError
from lingpai.storage.versioned_secrets import SecretError
from lingpai.targets import TargetError
from lingpai.telemetry.logs import set_up_logging
from lingpai.terminal import say, say_error

log = logging.getLogger("lingpai.serving")


def run(options: ServeOptions) -> int:
    """Serve until a signal ends it; the exit code. What keeps it from starting is said on stderr."""
    read_settings = partial(
        load_settings,
        config=None if options.config is None else Path(options.config),
        environment=os.environ,
        flags={"server": options.server},
    )
    try:
        settings = read_settings()
        set_up_logging(level=settings.server.log_level, format_=settings.server.log_format)
        folder = Path(options.data or os.environ.get("LINGPAI_DATA") or "lingpai-data").resolve()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _serve(settings, options.targets, folder, reload=options.reload, read_settings=read_settings)
            )
    except asyncio.CancelledError:
        pass  # stopped by a signal before it was ready
    except (
        SettingsError,
        StartError,
        TargetError,
        SecretError,
        NewerDatabaseError,
        LingpaiError,
    ) as error:
        say_error(str(error))
        return 1
    return 0


async def _serve(
    settings: Settings,
    targets: tuple[str, ...],
    data: Path,
    *,
    reload: bool,
    read_settings: Callable[[], Settings],
) -> None:
    named = tuple(ModelSettings(target=target) for target in targets)
    application = Application(settings, data=data, environment=os.environ, on_progress=say)
    _stop_on_signals(application)
    _reload_on_signal(application, read_settings)
    try:
        started = await application.start(
            named if named or settings.models else default_targets(), settings.models
        )
        announce(started, data=application.data, models=application.catalog.models())
        if reload:
            _reload_on_change(application)
        tune_garbage_collection()
        await application.run()
        say("stopping …")
    finally:
        await application.stop()


def _stop_on_signals(application: Application) -> None:
    """SIGINT and SIGTERM end the server in order, whether it is still starting or running."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if not application.request_stop() and task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _reload_on_change(application: Application) -> None:
    """Only the workers are started anew, the server goes on: keys, limits and connections stay."""
    for served in application.fleet.served():
        if isinstance(served.backend, Worker):
            served.backend.reload_on_change()


def _reload_on_signal(application: Application, read_settings: Callable[[], Settings]) -> None:
    """SIGHUP reads the settings again. Bad ones change nothing, and nothing ends the server."""

    async def reload() -> None:
        try:
            reloaded = await application.reload(read_settings())
        except (SettingsError, LingpaiError) as error:
            log.error("the settings were not reloaded, the old ones stay: %s", error)  # noqa: TRY400  the message says it all
        else:
            summary = reloaded.summary if reloaded else "not while starting or stopping"
            log.info("settings reloaded: %s", summary)

    def start() -> None:
        application.jobs.start("reload the settings", reload())

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, start)
