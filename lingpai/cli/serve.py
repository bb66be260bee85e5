"""`lingpai serve`: the only command that loads the server, and does so late."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import uvloop
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

import lingpai
from lingpai.app import Application, Started, default_targets
from lingpai.backends.worker import Worker
from lingpai.catalog.interfaces import Model
from lingpai.cli.failures import CommandError
from lingpai.errors import LingpaiError
from lingpai.process_setup import StartError, tune_garbage_collection
from lingpai.settings import ModelSettings, Settings, SettingsError, load_settings
from lingpai.storage.migrate import NewerDatabaseError
from lingpai.storage.versioned_secrets import SecretError
from lingpai.targets import DEMONSTRATION_NAME, TargetError
from lingpai.telemetry.logs import set_up_logging

log = logging.getLogger("lingpai.cli")


def serve(
    *targets: Annotated[
        str, Parameter(help="app.py | app.py:name | package.module:name | http://host:port/v1 | ollama")
    ],
    config: Annotated[
        Path | None, Parameter(help="Settings file (else ./lingpai.toml, if there is one).")
    ] = None,
    data: Annotated[
        Path | None, Parameter(help="Data directory (else LINGPAI_DATA, else ./lingpai-data).")
    ] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on (else 127.0.0.1).")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on (else 8741; 0: a free one).")] = None,
    tls_cert: Annotated[
        Path | None, Parameter(help="Certificate with its chain, a PEM file: speak TLS.")
    ] = None,
    tls_key: Annotated[Path | None, Parameter(help="The certificate's private key, a PEM file.")] = None,
    insecure: Annotated[
        bool, Parameter(negative=(), help="Listen in clear text where others can read along.")
    ] = False,
    reload: Annotated[
        bool,
        Parameter(
            negative=(), help="Load the targets' Python files anew when they change (for development)."
        ),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Parameter(help="How much is logged.")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, Parameter(help="Log lines for people or programs.")
    ] = None,
) -> None:
    """Serve models behind API keys, limits and usage.

    TARGET is a Python file or object, the address of an OpenAI-compatible server, or `ollama`; several may be given.
    Without any, three demonstration models are served.
    """
    read_settings = partial(
        load_settings,
        config=config,
        environment=os.environ,
        flags={
            "server": {
                "host": host,
                "port": port,
                "tls_cert": None if tls_cert is None else str(tls_cert),
                "tls_key": None if tls_key is None else str(tls_key),
                "insecure": insecure or None,
                "log_level": log_level,
                "log_format": log_format,
            }
        },
    )
    try:
        settings = read_settings()
        set_up_logging(level=settings.server.log_level, format_=settings.server.log_format)
        folder = (data or Path(os.environ.get("LINGPAI_DATA") or "lingpai-data")).resolve()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, targets, folder, reload=reload, read_settings=read_settings))
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
        raise CommandError(str(error)) from error


async def _serve(
    settings: Settings,
    targets: tuple[str, ...],
    data: Path,
    *,
    reload: bool,
    read_settings: Callable[[], Settings],
) -> None:
    named = tuple(ModelSettings(target=target) for target in targets)
    application = Application(settings, data=data, environment=os.environ, on_progress=_say)
    _stop_on_signals(application)
    _reload_on_signal(application, read_settings)
    try:
        started = await application.start(
            named if named or settings.models else default_targets(), settings.models
        )
        _announce(application, started)
        if reload:
            _reload_on_change(application)
        tune_garbage_collection()
        await application.run()
        _say("stopping …")
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _announce(application: Application, started: Started) -> None:
    """The first lines: address, models and, on the very first start, one key. It is not printed or logged again."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]Lingpai {lingpai.__version__}[/bold] is ready.\n")
    console.print(f"Address  [bold]{started.address}/v1[/bold]")
    console.print(f"Data     {escape(str(application.data))}")
    models = application.catalog.models()
    width = max((len(model.id) for model in models), default=0)
    for number, model in enumerate(models):
        name = escape(model.id.ljust(width))
        console.print(f"{'Models' if number == 0 else '':7}  {name}  [dim]{model.task}{_mark(model)}[/dim]")
    if started.first_key is not None:
        console.print("\nYour first API key, shown only now. Store it, for example so:\n")
        console.print(f"  export LINGPAI_API_KEY={started.first_key}")
    console.print(
        f"\nTry it:\n\n{_try_it(started.address, application.catalog.models())}\n\nStop with Ctrl-C."
    )
    sys.stdout.flush()


def _mark(model: Model) -> str:
    return " · demonstration" if model.backend.name == DEMONSTRATION_NAME else ""


def _try_it(address: str, models: list[Model]) -> str:
    """A command that works: for the first model that chats, else that takes a text, else that takes a file."""
    head = f'  curl {address}{{path}} -H "Authorization: Bearer $LINGPAI_API_KEY" \\\n'
    json_head = head + "    -H 'Content-Type: application/json' -d '{body}'"
    chats = [model.id for model in models if model.task == "chat"]
    if chats:
        body = f'{{"model": "{chats[0]}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        return json_head.format(path="/v1/chat/completions", body=body)
    for takes, line in ((_takes_text, json_head), (_takes_file, head + "    -F file=@FILE")):
        fitting = [model.id for model in models if takes(model)]
        if fitting:
            path = f"/api/v1/models/{fitting[0]}/inference"
            return line.format(path=path, body='{"input": "Hello"}')
    if models:
        return f"  lingpai models show {models[0].id}"
    return head.format(path="/v1/models").rstrip(" \\\n")


def _takes_text(model: Model) -> bool:
    # Of a plain function, or a model elsewhere, it is not known what it takes.
    return not model.input or (_takes_string(model) and "contentMediaType" not in model.input)


def _takes_file(model: Model) -> bool:
    return _takes_string(model) and "contentMediaType" in model.input


def _takes_string(model: Model) -> bool:
    return model.input.get("type") == "string" and not model.parameters.get("required")
