"""Composition: settings in, server out. The one file that knows every part."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import OperationalError

from lingpai.api import build_api
from lingpai.auditing import Auditing
from lingpai.catalog.health import BackendHealth
from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.domains import Domains
from lingpai.events.endpoints import WebhookSettingsError
from lingpai.exposure import (
    STRICT_TRANSPORT,
    check_exposure,
    declared_proxies,
    measure_tls,
    server_tls,
    tls_files,
    watch_tls,
)
from lingpai.gateway.answer import EXPOSED_HEADERS, DateLine
from lingpai.gateway.authenticate import Account, Authenticator
from lingpai.gateway.call_limits import CallLimits
from lingpai.gateway.endpoints import is_for_browsers
from lingpai.gateway.gateway import Gateway
from lingpai.gateway.revoked import LOOK_EVERY_S
from lingpai.gateway.signed import SignedCalls
from lingpai.identity.known_ids import LookUps
from lingpai.identity.people import CLEAN_EVERY_S
from lingpai.identity.schemas import KeyCreate
from lingpai.identity.signing.verifying import Signatures
from lingpai.jobs.runner import JobRunner
from lingpai.lane.server import LaneServer
from lingpai.metering.counting import TokenCounter
from lingpai.metering.journal import Journal
from lingpai.metering.lag import JournalLag
from lingpai.metering.supervisor import IngesterProcess
from lingpai.metering.watch import JournalWatch
from lingpai.process_setup import StartError, bind, bounds, cannot_store, lock_data, temporary_folder
from lingpai.quotas.headers import rate_limit_headers
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import MemoryLimiter
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.subjects import EACH_USER
from lingpai.quotas.under_way import CallUnderWay
from lingpai.reload import Reload, plan_reload
from lingpai.settings import ModelSettings, Settings
from lingpai.socket_paths import socket_address
from lingpai.targets import DEMONSTRATION, DEMONSTRATION_NAME, Fleet, OriginUnreachableError
from lingpai.telemetry.call_log import CallLog
from lingpai.telemetry.logs import set_up_logging
from lingpai.telemetry.metrics import CallMetrics
from lingpai.web.cross_origin import CrossOriginCalls
from lingpai.web.paths import UsualPaths
from lingpai.web.security_headers import SecurityHeaders

log = logging.getLogger("lingpai.app")

FIRST_KEY_NAME: Final = "first"
INGEST_TIMEOUT_S: Final = 600.0
_FIRST_CLEANING_S: Final = 2.0


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
        self._reloading = asyncio.Lock()
        self._exits = AsyncExitStack()
        self._exits.callback(os.close, lock_data(data))
        self.tls = server_tls(settings.server)
        self.jobs = JobRunner()
        self.metrics = CallMetrics()
        self.catalog = Catalog(default_model=settings.server.default_model)
        self.fleet = Fleet(
            self.catalog,
            socket_folder=Path(self._exits.enter_context(temporary_folder())),
            environment=environment,
            on_progress=on_progress,
            on_removed=self._drop_backend,
            on_replaced=self._retire_connections,
            on_health=self._on_health,
        )
        self._open_storage(environment)
        self.health = BackendHealth(self.domains.note_backend)

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
            self.auditing = Auditing(self.domains.database, self.domains.trail, self.data)
        except WebhookSettingsError as error:
            raise StartError(str(error)) from error
        except (OSError, OperationalError) as error:
            raise cannot_store(self.data, error) from error
        self._exits.callback(self.domains.close)
        self._exits.push_async_callback(self.auditing.close)
        self._exits.push_async_callback(self.domains.webhooks.close)
        self._exits.push_async_callback(self.domains.events.flush)
        self.local_administrator = self.domains.users.local_administrator()
        self.local_administrator.account = Account(
            self.local_administrator, ()
        )  # it manages; it does not call

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
        listener = bind(self.settings.server.host, self.settings.server.port)
        host, port = listener.getsockname()[:2]
        scheme = "http" if self.tls is None else "https"
        self.domains.authorization.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self._exits.callback(listener.close)
        check_exposure(listener, self.settings.server)
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
        await self.domains.authorization.prepare()
        await self._start_jobs()
        first_key = await asyncio.to_thread(self._make_first_key)
        await self.auditing.start(self.jobs)
        return Started(self.domains.authorization.address, first_key)

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
        try:
            self.journal = Journal(folder, loop, self.settings.metering)
        except OSError as error:
            raise cannot_store(self.data, error) from error
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
        authenticator = Authenticator(
            keyring, self.meters.load, jobs=self.jobs, read_local=self.domains.users.local_administrator
        )
        signatures = Signatures(self.domains.signing_keyring, self.domains.nonces)
        look_ups = LookUps()
        self.gateway = Gateway(
            settings=self.settings.gateway,
            loop=loop,
            catalog=self.catalog,
            authenticator=authenticator,
            signed_calls=SignedCalls(signatures, authenticator, jobs=self.jobs, look_ups=look_ups),
            look_ups=look_ups,
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
            call_log=CallLog() if self.settings.server.log_calls else None,
            on_unreachable=self.health.suspect,
            date_line=DateLine(strict_transport=None if self.tls is None else STRICT_TRANSPORT),
            on_refusal=self.auditing.refusals.note,
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
            "lingpai_connections_seen",
            "Connections of callers since the start.",
            lambda: self.server.doorman.seen,
        )
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
        gauge(
            "lingpai_held_body_bytes",
            "Bytes of requests and answers that calls under way hold; small ones are not counted.",
            lambda: self.gateway.bodies.held,
        )
        self.auditing.measure(self.metrics)
        nonces = self.domains.nonces
        gauge("lingpai_nonces", "Nonces of signed requests that are remembered.", lambda: len(nonces))
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
            bounds=bounds(settings),
            proxies=declared_proxies(settings),
            tls=self.tls,
        )
        if self.tls is not None:
            measure_tls(self.metrics, self.tls, lambda: self.server.arrivals)
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
        self.jobs.every(LOOK_EVERY_S, "end calls of revoked callers", self._end_revoked)
        if self.tls is not None:
            watch_tls(self.jobs, self.tls)
        self.domains.learn_key_ids()
        self.domains.secrets.start(self.jobs, self.domains.keyring)
        self.jobs.every(5.0, "evict idle limits", self._evict_idle_limits)
        self.jobs.every(60.0, "note last uses of keys", self._note_uses)
        self.jobs.every(60.0, "delete expired tokens", self._delete_expired_tokens)
        self.jobs.every(1800.0, "renew the ids of tokens", self.domains.renew_token_ids)
        self.jobs.every(60.0, "forget old nonces", self.domains.nonces.sweep)
        self.jobs.every(60.0, "refresh model lists", self.fleet.refresh)
        self.jobs.every(
            CLEAN_EVERY_S,
            "remove sessions and invitations that are over",
            self._remove_over,
            first_after=_FIRST_CLEANING_S,
        )
        # Soon after the start, too: some servers are started anew more often than once an hour.
        self.jobs.every(
            3600.0, "delete old usage records", self.domains.retention.expire, first_after=_FIRST_CLEANING_S
        )
        await self._start_events()
        for target in await asyncio.to_thread(self.domains.targets.all):
            read_key = partial(self.domains.targets.read_key, target)
            serving = self.fleet.add_patiently(ModelSettings(target=target), read_key=read_key)
            self.jobs.start("serve a kept target", serving)

    async def _start_events(self) -> None:
        events, webhooks = self.domains.events, self.domains.webhooks
        watch = JournalWatch(
            self.domains.database,
            self.journal,
            self.ingester,
            on_damage=self.domains.note_damage,
            on_delay=self._note_delay,
        )
        self.jobs.every(1.0, "watch the way of usage records", watch.look)
        self.jobs.every(1.0, "look at backends that are away", self._look_at_backends)
        self.jobs.every(0.5, "store events", events.flush)
        self.jobs.every(3600.0, "remove old events", self._remove_old_events, first_after=_FIRST_CLEANING_S)
        await webhooks.give_up_removed()
        for courier in webhooks.couriers:
            self.jobs.every(1.0, f"send events to {courier.endpoint.name}", courier.deliver_due)

    async def _look_at_backends(self) -> None:
        due = self.health.due()
        if due:
            await self.fleet.refresh(due)

    async def _remove_over(self) -> None:
        await asyncio.to_thread(self.domains.people.remove_expired)

    def _note_delay(self, waiting_s: float) -> None:
        self.domains.note_delay(waiting_s, self.lag.records(), self.lag.bytes())

    async def _remove_old_events(self) -> None:
        await self.domains.events.remove_old(self.settings.events.keep_days)

    # -- the ASGI side

    def _build_asgi(self) -> Any:
        origins = self.settings.gateway.cors_origins
        self._cross_origin = CrossOriginCalls(
            build_api(self), is_call=is_for_browsers, origins=origins, exposed=EXPOSED_HEADERS
        )
        return SecurityHeaders(UsualPaths(self._cross_origin), strict_transport=STRICT_TRANSPORT)

    def not_ready_because(self) -> str | None:
        """Why calls cannot be answered now; None when they can."""
        if self._is_stopping:
            return "the server is stopping"
        if not self.journal.healthy:
            return "usage cannot be recorded"
        if self.fleet.is_loading:
            return "models are loading"
        return None if self.catalog.models() else "there is no model"

    # -- what parts tell each other

    def _on_identity_change(self, kind: str, id_: str, began: float) -> None:
        """A key, user or project changed (told from a worker thread): the next call must see it."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._forget(kind, id_, began), self._loop).result(timeout=10)

    async def _forget(self, kind: Any, id_: str, began: float) -> None:
        self.meters.limits_changed((kind, id_), began=began)
        keyring = self.domains.keyring
        forget = {
            "client": self.domains.forget_client,
            "key": keyring.forget_key,
            "project": keyring.forget_project,
            "token": keyring.forget_token,
            "user": keyring.forget_user,
        }
        forget[kind](id_)
        self.domains.signing_keyring.forget_owner(id_)

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
        users = self.gateway.users_on(model_id, self._calls())
        return {subject} | {("user_model", f"{user} {model_id}") for user in users}

    def _held_for(self, subject: Subject) -> list[CallUnderWay]:
        """What the calls that are not recorded yet hold of a subject's limits."""
        return self.gateway.held_for(subject, self._calls())

    def _calls(self) -> list[object]:
        return [front.call for front in self.server.fronts]

    def _on_health(self, backend: Backend, why: str | None) -> None:
        """A backend was looked at, or its worker's state changed."""
        if why is None:
            self.health.up(backend)
        elif not self._is_stopping:
            self.health.down(backend, why)

    def _drop_backend(self, backend: Backend) -> None:
        self.health.forget(backend)
        self.jobs.start("drop a backend", self.gateway.drop(backend))

    def _retire_connections(self, backend: Backend) -> None:
        self.gateway.retire_connections(backend)  # made after the fleet

    async def _end_revoked(self) -> None:
        await self.gateway.end_revoked(self._calls())

    def _evict_idle_limits(self) -> None:
        self.limiter.evict_idle(time.time(), self.settings.limits.evict_after_s)

    async def _reached(self, position: Any) -> bool:
        return await self.ingester.wait_for(position, self.settings.metering.usage_wait_s)

    async def all_recorded(self) -> bool:
        """Wait, within bounds, until everything answered is in the database; False if it is not."""
        return await self._reached(self.journal.position)

    async def _note_uses(self) -> None:
        uses = self.domains.keyring.take_uses()
        if uses:
            of_keys = [use for use in uses if use.kind == "key"]
            of_clients = [use for use in uses if use.kind == "client"]
            await asyncio.to_thread(self.domains.keys.touch, of_keys)
            await asyncio.to_thread(self.domains.clients.touch, of_clients)
        if signed := self.domains.signing_keyring.take_uses():
            await asyncio.to_thread(self.domains.signing_keys.touch, signed)
        await asyncio.to_thread(self.domains.secrets.rehashes.write)

    async def _delete_expired_tokens(self) -> None:
        await asyncio.to_thread(self.domains.delete_expired_tokens)

    # -- run and stop

    async def run(self) -> None:
        """Serve until told to stop."""
        self._is_running = True
        await self.server.run()

    async def reload(self, new: Settings) -> Reload | None:
        """Take over what of `new` a running server can; None while starting or stopping.

        Raises LingpaiError when the audit trail cannot be written; nothing changes then.
        """
        async with self._reloading:
            if not self._is_running or self._is_stopping:
                return None
            reload = plan_reload(self.settings, new)
            await self.auditing.note_reload(self.settings, reload)
            self._take_over(reload)
            return reload

    def _take_over(self, reload: Reload) -> None:
        self.settings = settings = reload.settings
        set_up_logging(level=settings.server.log_level, format_=settings.server.log_format)
        self.catalog.default_model = settings.server.default_model
        self.gateway.reconfigure(settings.gateway)
        self.gateway.call_log = CallLog() if settings.server.log_calls else None
        self._cross_origin.allow(settings.gateway.cors_origins)
        self.domains.set_default_limits(settings.limits.default)
        self.domains.authorization.reconfigure(settings.oauth)
        self.jobs.start("publish the key that signs tokens", self.domains.authorization.prepare())
        self.domains.secrets.reread()
        if self.tls is not None:
            self.tls.reload(
                tls_files(settings.server)
            )  # also if the paths are the same: renewing replaces the files
        self.server.reconfigure(
            keep_alive_s=settings.server.keep_alive_s,
            stop_timeout_s=settings.server.stop_timeout_s,
            bounds=bounds(settings.server),
        )

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


def default_targets() -> tuple[ModelSettings, ...]:
    """What is served when nothing is named: the demonstration models."""
    return (ModelSettings(target=DEMONSTRATION, name=DEMONSTRATION_NAME),)
