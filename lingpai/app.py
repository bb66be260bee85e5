"""Composition: settings in, server out. The one file that knows every part."""

import asyncio
import errno
import fcntl
import gc
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request

import lingpai
from lingpai import model_operations
from lingpai.catalog import routes as catalog_routes
from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.domains import Domains
from lingpai.events import routes as event_routes
from lingpai.events.endpoints import WebhookSettingsError
from lingpai.gateway import authenticate
from lingpai.gateway import routes as gateway_routes
from lingpai.gateway.answer import EXPOSED_HEADERS
from lingpai.gateway.authenticate import Account, Authenticator, has_doubled_credential, read_credential
from lingpai.gateway.call_limits import CallLimits
from lingpai.gateway.compatible_keys import compatible_key_routes
from lingpai.gateway.endpoints import is_for_browsers
from lingpai.gateway.exchange import Exchange
from lingpai.gateway.gateway import Gateway
from lingpai.identity import routes as identity_routes
from lingpai.identity.schemas import KeyCreate
from lingpai.jobs.runner import JobRunner
from lingpai.lane.doorman import Bounds
from lingpai.lane.server import LaneServer, most_connections, raise_descriptor_limit
from lingpai.metering import journal_routes, request_routes
from lingpai.metering import routes as metering_routes
from lingpai.metering.counting import TokenCounter
from lingpai.metering.journal import Journal
from lingpai.metering.lag import JournalLag
from lingpai.metering.supervisor import IngesterProcess
from lingpai.principal import Principal
from lingpai.quotas import routes as quota_routes
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.description import describe
from lingpai.quotas.headers import rate_limit_headers
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import MemoryLimiter
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.service import Limits
from lingpai.quotas.subjects import EACH_USER
from lingpai.reload import Reload, plan_reload
from lingpai.settings import ModelSettings, ServerSettings, Settings
from lingpai.socket_paths import socket_address
from lingpai.targets import DEMONSTRATION, DEMONSTRATION_NAME, Fleet, OriginUnreachableError
from lingpai.telemetry.call_log import CallLog
from lingpai.telemetry.logs import set_up_logging
from lingpai.telemetry.metrics import CallMetrics, render
from lingpai.web.cross_origin import CrossOriginCalls
from lingpai.web.errors import install_error_handlers
from lingpai.web.health import health_routes
from lingpai.web.paths import UsualPaths

log = logging.getLogger("lingpai.app")

FIRST_KEY_NAME: Final = "first"
INGEST_TIMEOUT_S: Final = 600.0


class StartError(Exception):
    """The server cannot start. The message says why and what to try."""


@dataclass(frozen=True, slots=True)
class Started:
    """What the first lines of `lingpai serve` tell."""

    address: str
    first_key: str | None


class Application:
    """One server process: built from settings, started, run, stopped.

    What has been opened is noted in `_exits` at once and closed in the reverse order, also after a start that failed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        data: Path,
        environment: Mapping[str, str],
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.data = data
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False
        self._is_running = False
        self._exits = AsyncExitStack()
        self._exits.callback(os.close, _lock_data(data))
        self.jobs = JobRunner()
        self.metrics = CallMetrics()
        self.catalog = Catalog(default_model=settings.server.default_model)
        self.fleet = Fleet(
            self.catalog,
            socket_folder=Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="lingpai-"))),
            environment=environment,
            on_progress=on_progress,
            on_removed=self._drop_backend,
        )
        self._open_storage(environment)

    def _open_storage(self, environment: Mapping[str, str]) -> None:
        try:
            self.domains = Domains(
                self.settings,
                self.catalog,
                data=self.data,
                environment=environment,
                on_identity_change=self._on_identity_change,
                on_limits_change=self._on_limits_change,
            )
        except WebhookSettingsError as error:
            raise StartError(str(error)) from error
        self._exits.callback(self.domains.close)
        self._exits.push_async_callback(self.domains.webhook_client.close)
        self._exits.push_async_callback(self.domains.events.flush)
        self.local_administrator = self.domains.users.local_administrator()
        self.local_administrator.account = Account(self.local_administrator, ())

    def _make_first_key(self) -> str | None:
        """On the first start that succeeds: one key to begin with."""
        if self.domains.keys.were_ever_made():
            return None
        return self.domains.keys.create(self.local_administrator, KeyCreate(name=FIRST_KEY_NAME)).token

    # -- start

    async def start(
        self, named: tuple[ModelSettings, ...], configured: tuple[ModelSettings, ...] = ()
    ) -> Started:
        """Listen, load the journal, serve the targets of the command line and those of lingpai.toml.

        Raises StartError or TargetError; call `stop` in any case.
        """
        loop = self._loop = asyncio.get_running_loop()
        listener = _bind(self.settings.server.host, self.settings.server.port)
        self._exits.callback(listener.close)
        self._exits.push_async_callback(self.fleet.stop)
        serving = asyncio.gather(
            *(self.fleet.add(model) for model in named),
            *(self._serve_configured(model) for model in configured),
        )
        try:
            await self._open_journal(loop)
            self._build_gateway(loop)
            await self._listen(listener)
            if not await self.ingester.wait_for(self._journal_at_start, INGEST_TIMEOUT_S):
                raise StartError("The usage journal of the last run could not be loaded. The log says why.")
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        self._warn_of_default_model()
        await self._start_jobs()
        host, port = listener.getsockname()[:2]
        first_key = await asyncio.to_thread(self._make_first_key)
        return Started(f"http://{f'[{host}]' if ':' in host else host}:{port}", first_key)

    async def _serve_configured(self, model: ModelSettings) -> None:
        """Serve a target of lingpai.toml. An origin may come later: after a power failure it need not be up first."""
        try:
            await self.fleet.add(model)
        except OriginUnreachableError as error:
            log.warning("target %s: %s Serving without it until it is there.", model.target, error)
            self.jobs.start("serve a configured target", self.fleet.add_patiently(model))

    async def _open_journal(self, loop: asyncio.AbstractEventLoop) -> None:
        folder = self.data / "journal"
        self.ingester = IngesterProcess(folder, self.data / "lingpai.db")
        self._exits.push_async_callback(self.ingester.stop)
        self.journal = Journal(folder, loop, self.settings.metering)
        self._exits.callback(self.journal.close)
        self.lag = JournalLag(self.journal, self.ingester)
        self._journal_at_start = self.journal.position
        await self.ingester.start()

    def _build_gateway(self, loop: asyncio.AbstractEventLoop) -> None:
        keyring = self.domains.keyring
        self.limiter = MemoryLimiter(self.domains.usage, warn_at=self.settings.limits.warn_at)
        self.limiter.on_threshold = self.domains.note_threshold
        self.meters = MeterLoader(
            self.limiter,
            mark=lambda: self.journal.position,
            reached=self._reached,
            under_way=self._held_for,
        )
        self.counter = TokenCounter()
        self._exits.callback(self.counter.close)
        self.gateway = Gateway(
            settings=self.settings.gateway,
            loop=loop,
            catalog=self.catalog,
            authenticator=Authenticator(keyring, self.meters.load, jobs=self.jobs),
            limiter=self.limiter,
            rate_limit_headers=rate_limit_headers,
            journal=self.journal,
            metrics=self.metrics,
            is_loading=lambda: self.fleet.is_loading,
            call_limits=CallLimits(
                self.domains.book,
                self.meters.load,
                let_go=self._let_go_of_meters,
                generation=lambda: keyring.generation,
                jobs=self.jobs,
            ),
            counter=self.counter,
            jobs=self.jobs,
            local_administrator=self.local_administrator,
            call_log=CallLog() if self.settings.server.log_calls else None,
        )
        self._exits.push_async_callback(self.gateway.close)
        self._exits.push_async_callback(self.jobs.stop)
        self._measure()

    def _let_go_of_meters(self, subject: Subject) -> None:
        self.limiter.attach(subject, ())

    def _measure(self) -> None:
        """The gauges of /metrics."""
        gauge = self.metrics.gauge
        gauge("lingpai_connections", "Open connections of callers.", lambda: len(self.server.fronts))
        gauge("lingpai_meters", "Limit counters in memory.", lambda: len(self.limiter))
        counter = self.metrics.counter
        keyring = self.domains.keyring
        counter("lingpai_key_lookups", "Keys looked up in the database.", lambda: keyring.look_ups)
        counter(
            "lingpai_connections_refused",
            "Connections turned away because there were too many.",
            lambda: self.server.doorman.turned_away,
        )
        gauge(
            "lingpai_waiting_calls",
            "Calls that wait for a limit with `wait`.",
            lambda: self.gateway.queue.size,
        )
        gauge("lingpai_journal_records", "Usage records not in the database yet.", self.lag.records)
        gauge("lingpai_journal_bytes", "Bytes of the usage journal not in the database yet.", self.lag.bytes)
        gauge("lingpai_journal_skipped", "Damaged places of the usage journal skipped.", self.lag.skipped)

    async def _listen(self, listener: socket.socket) -> None:
        settings = self.settings.server
        self.server = LaneServer(
            self._build_asgi(),
            self.gateway,
            keep_alive_s=settings.keep_alive_s,
            stop_timeout_s=settings.stop_timeout_s,
            bounds=_bounds(settings),
        )
        admin_socket = self.data / "admin.sock"
        # One that is there was left by a process that was killed: the lock says that it is gone.
        admin_socket.unlink(missing_ok=True)
        await self.server.start(listener, socket_address(admin_socket))
        self._exits.push_async_callback(self._drain)

    def _warn_of_default_model(self) -> None:
        name = self.settings.server.default_model
        if name is not None and self.catalog.find(name) is None:
            log.warning("server.default_model: there is no model %s.%s", name, self.catalog.nearest(name))

    async def _start_jobs(self) -> None:
        self.jobs.every(0.5, "watch time-outs", self.gateway.sweep)
        self.domains.learn_key_ids()
        self.jobs.every(5.0, "evict idle limits", self._evict_idle_limits)
        self.jobs.every(60.0, "note last uses of keys", self._note_uses)
        self.jobs.every(60.0, "refresh model lists", self.fleet.refresh)
        self.jobs.every(3600.0, "delete old usage records", self.domains.retention.expire)
        await self._start_events()
        for target in await asyncio.to_thread(self.domains.targets.all):
            self.jobs.start("serve a kept target", self.fleet.add_patiently(ModelSettings(target=target)))

    async def _start_events(self) -> None:
        events, webhooks = self.domains.events, self.domains.webhooks
        self.jobs.every(0.5, "store events", events.flush)
        self.jobs.every(3600.0, "remove old events", self._remove_old_events)
        await webhooks.give_up_removed()
        for courier in webhooks.couriers:
            self.jobs.every(1.0, f"send events to {courier.endpoint.name}", courier.deliver_due)

    async def _remove_old_events(self) -> None:
        await self.domains.events.remove_old(self.settings.events.keep_days)

    # -- the ASGI side

    def build_api(self) -> FastAPI:
        """Everything that is not a model call, and the document of it all."""
        app = FastAPI(title="Lingpai", version=lingpai.__version__, docs_url=None, redoc_url=None)
        app.state.authenticate = self._authenticate
        for router in self._routers():
            app.include_router(router)
        install_error_handlers(app)
        return app

    def _build_asgi(self) -> Any:
        origins = self.settings.gateway.cors_origins
        self._cross_origin = CrossOriginCalls(
            self.build_api(), is_call=is_for_browsers, origins=origins, exposed=EXPOSED_HEADERS
        )
        return UsualPaths(self._cross_origin)

    def _routers(self) -> list[Any]:
        domains = self.domains
        return [
            health_routes(
                not_ready_because=self._not_ready_because,
                metrics=lambda: render(self.metrics),
                metrics_token=self.settings.server.metrics_token,
            ),
            catalog_routes.client_routes(self.catalog),
            gateway_routes.documented_calls(),
            gateway_routes.key_routes(describe, time.time),
            compatible_key_routes(describe, time.time),
            identity_routes.key_routes(domains.keys),
            identity_routes.user_routes(domains.users),
            identity_routes.project_routes(domains.projects),
            quota_routes.limit_routes(
                Limits(
                    domains.subjects,
                    domains.models,
                    domains.book,
                    self.meters.load,
                    generation=lambda: domains.keyring.generation,
                )
            ),
            metering_routes.usage_routes(domains.usage_report, self._all_recorded, domains.names),
            request_routes.request_routes(domains.requests, self._all_recorded, domains.names, time.time),
            journal_routes.journal_routes(domains.database, self.lag, lambda: self.journal.healthy),
            event_routes.event_routes(domains.events, domains.webhooks),
            catalog_routes.management_routes(
                self.catalog, model_operations.TargetOperations(self.fleet, domains.targets, self.gateway)
            ),
        ]

    async def _authenticate(self, request: Request) -> Principal:
        """Who calls a route that is not a model call."""
        headers = request.headers.raw
        if has_doubled_credential(headers):
            raise authenticate.doubled_credential()
        token = read_credential(dict(headers))
        if token is None:
            if getattr(request.state, "is_local", False):
                return self.local_administrator
            raise authenticate.missing_key()
        principal = await self.gateway.authenticator.principal_for(token)
        if principal is None:
            request.scope["state"]["is_offence"] = True  # the front listens less to who keeps sending these
            raise authenticate.unknown_key(token)
        authenticate.check_principal(principal, request.client.host if request.client else "", time.time())
        return principal

    def _not_ready_because(self) -> str | None:
        if self._is_stopping:
            return "the server is stopping"
        if not self.journal.healthy:
            return "usage cannot be recorded"
        if self.fleet.is_loading:
            return "models are loading"
        return None if self.catalog.models() else "there is no model"

    # -- what parts tell each other

    def _on_identity_change(self, kind: str, id_: str) -> None:
        """A key, user or project changed (told from a worker thread): the next call must see it."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._forget(kind, id_), self._loop).result(timeout=10)

    async def _forget(self, kind: Any, id_: str) -> None:
        self.meters.limits_changed((kind, id_))
        keyring = self.domains.keyring
        forget = {"key": keyring.forget_key, "user": keyring.forget_user, "project": keyring.forget_project}
        forget[kind](id_)

    def _on_limits_change(self, subject: Subject) -> None:
        """The limits of a model, or of users on it, changed (told on the event loop)."""
        for each in self._held_to(subject):
            self.meters.limits_changed(each)

    def _held_to(self, subject: Subject) -> set[Subject]:
        """The subject; where it stands for each user of a model, those with a call to it under way as well."""
        kind, id_ = subject
        user_id, _, model_id = id_.partition(" ")
        if kind != "user_model" or user_id != EACH_USER:
            return {subject}
        callers = {call.principal for call in self._calls() if call.is_admitted and call.model.id == model_id}
        return {subject} | {
            ("user_model", f"{caller.user_id} {model_id}") for caller in callers if caller is not None
        }

    def _held_for(self, subject: Subject) -> list[tuple[float, Amounts]]:
        """What the calls that are not recorded yet hold of a subject's limits."""
        return self.gateway.held_for(subject, self._calls())

    def _calls(self) -> list[Exchange]:
        calls = (front.call for front in self.server.fronts)
        return [call for call in calls if isinstance(call, Exchange)]

    def _drop_backend(self, backend: Backend) -> None:
        self.jobs.start("drop a backend", self.gateway.drop(backend))

    def _evict_idle_limits(self) -> None:
        self.limiter.evict_idle(time.time(), self.settings.limits.evict_after_s)

    async def _reached(self, position: Any) -> bool:
        return await self.ingester.wait_for(position, self.settings.metering.usage_wait_s)

    async def _all_recorded(self) -> bool:
        return await self._reached(self.journal.position)

    async def _note_uses(self) -> None:
        uses = self.domains.keyring.take_uses()
        if uses:
            await asyncio.to_thread(self.domains.keys.touch, uses)

    # -- run and stop

    async def run(self) -> None:
        """Serve until told to stop."""
        self._is_running = True
        await self.server.run()

    def reload(self, new: Settings) -> Reload | None:
        """Take over what of `new` a running server can; None while starting or stopping. On the event loop."""
        if not self._is_running or self._is_stopping:
            return None
        reload = plan_reload(self.settings, new)
        self.settings = settings = reload.settings
        set_up_logging(level=settings.server.log_level, format_=settings.server.log_format)
        self.catalog.default_model = settings.server.default_model
        self.gateway.reconfigure(settings.gateway)
        self.gateway.call_log = CallLog() if settings.server.log_calls else None
        self._cross_origin.allow(settings.gateway.cors_origins)
        self.domains.set_default_limits(settings.limits.default)
        self.server.reconfigure(
            keep_alive_s=settings.server.keep_alive_s,
            stop_timeout_s=settings.server.stop_timeout_s,
            bounds=_bounds(settings.server),
        )
        return reload

    def request_stop(self) -> bool:
        """End `run`, if it was called; asked a second time, without waiting for streams. False while starting."""
        if self._is_running:
            self.server.stop()
        return self._is_running

    async def stop(self) -> None:
        """Stop in order: no new calls, let streams finish, record, load the records, close."""
        await self._exits.aclose()

    async def _drain(self) -> None:
        self._is_stopping = True
        await self.server.drain()
        await self._note_uses()
        (self.data / "admin.sock").unlink(missing_ok=True)


def tune_garbage_collection() -> None:
    """Keep what start-up made out of every collection, and collect less often: calls leave no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def default_targets() -> tuple[ModelSettings, ...]:
    """What is served when nothing is named: the demonstration models."""
    return (ModelSettings(target=DEMONSTRATION, name=DEMONSTRATION_NAME),)


def _bounds(settings: ServerSettings) -> Bounds:
    return Bounds(
        connections=most_connections(settings.max_connections, raise_descriptor_limit()),
        connections_per_address=settings.max_connections_per_address,
        calls_per_address=settings.max_calls_per_address,
    )


def _lock_data(data: Path) -> int:
    """Make the data folder, closed to others, and hold it for this process alone."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(
            f"Another server is running on {data}. Stop it, or choose another folder with --data."
        ) from None
    except OSError as error:
        raise StartError(
            f"The data folder {data} cannot be used: {error}. Choose another one with --data."
        ) from error
    return descriptor


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        advice = (
            "A server is running there already; choose another port with --port."
            if is_taken
            else "Check --host and --port."
        )
        raise StartError(f"Cannot listen on {host}:{port}: {error.strerror or error}. {advice}") from error
    return listener
