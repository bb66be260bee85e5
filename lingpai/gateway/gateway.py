"""The parts that the steps share, and the door through which calls come in."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.errors import LingpaiError
from lingpai.gateway import answer, authenticate, endpoints, read, settle
from lingpai.gateway.authenticate import Authenticator
from lingpai.gateway.bodies import BodyBudget
from lingpai.gateway.call_limits import CallLimits
from lingpai.gateway.complaints import Complaints
from lingpai.gateway.exchange import Exchange
from lingpai.gateway.queue import Queue
from lingpai.gateway.revoked import RevokedCalls
from lingpai.gateway.settings import GatewaySettings
from lingpai.gateway.signed import SignedCalls
from lingpai.gateway.tally import Counter
from lingpai.identity.known_ids import LookUps
from lingpai.jobs.runner import JobRunner
from lingpai.lane.calls import Headers
from lingpai.lane.front import Front
from lingpai.lane.upstream import Receiver
from lingpai.lane.upstream_pool import Origin, Timeouts, UpstreamPool
from lingpai.metering.journal import Journal
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limit_set import LimitSet
from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import Refusal
from lingpai.quotas.under_way import CallUnderWay
from lingpai.storage.trail import PolicyRefusal
from lingpai.telemetry.call_log import CallLog
from lingpai.telemetry.metrics import CallMetrics
from lingpai.telemetry.tls import client_context


class Limiter(Protocol):
    """The limits, as far as a call in flight is concerned (quotas' limiter)."""

    def admit(self, limits: LimitSet, now: float) -> Refusal | None: ...
    def reserve(self, limits: LimitSet, now: float, least: Amounts, most: Amounts) -> Amounts | Refusal: ...
    def settle(self, limits: LimitSet, admitted_at: float, reserved: Amounts, used: Amounts) -> Amounts: ...
    def extend(self, limits: LimitSet, admitted_at: float, reserved: Amounts, used: Amounts) -> Amounts: ...
    def give_back(self, limits: LimitSet, admitted_at: float, reserved: Amounts = ...) -> None: ...


@dataclass(frozen=True, slots=True)
class Link:
    """A backend's connections, and what every request to it begins with: with JSON, or with something else."""

    pool: UpstreamPool
    head: bytes
    untyped_head: bytes
    prefix: bytes

    def send(self, path: bytes, body: bytes, receiver: Receiver, request_id: bytes) -> None:
        """Send a whole request (RFC 9112) to `path` below the backend's prefix; `receiver` gets the answer."""
        request = b"POST %b%b HTTP/1.1\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self.prefix, path, self.head, request_id, len(body), body,
        )  # fmt: skip
        self.pool.send(request, receiver)

    def send_typed(
        self, path: bytes, body: bytes, receiver: Receiver, request_id: bytes, *, media_type: bytes
    ) -> None:
        """Send a request whose body is not JSON."""
        head = b"%bcontent-type: %b\r\n" % (self.untyped_head, media_type)
        Link(self.pool, head, head, self.prefix).send(path, body, receiver, request_id)


@dataclass(slots=True, kw_only=True)
class Gateway:
    """Everything an exchange needs, given once."""

    settings: GatewaySettings
    loop: asyncio.AbstractEventLoop
    catalog: Catalog
    authenticator: Authenticator
    signed_calls: SignedCalls
    limiter: Limiter
    rate_limit_headers: Callable[[Sequence[Meter], float], bytes]
    journal: Journal
    metrics: CallMetrics
    is_loading: Callable[[], bool]
    call_limits: CallLimits
    counter: Counter
    jobs: JobRunner
    look_ups: LookUps = field(default_factory=LookUps)
    call_log: CallLog | None = None
    """Writes a line per call, where that is asked for."""
    on_unreachable: Callable[[Backend], None] = lambda _: None
    """Told of a backend to which a call got no connection."""
    on_refusal: Callable[[PolicyRefusal], None] = lambda _: None
    """Told of calls that are refused by policy."""
    queue: Queue = field(init=False)
    bodies: BodyBudget = field(init=False)
    complaints: Complaints = field(init=False)
    revoked: RevokedCalls = field(init=False)
    counting: set[Exchange] = field(default_factory=set)
    """Calls whose tokens are being counted; the callers of some have left."""
    date_line: answer.DateLine = field(default_factory=answer.DateLine)
    cross_origin: answer.CrossOrigin = field(init=False)
    _links: dict[str, Link] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.settings
        self.cross_origin = answer.CrossOrigin(settings.cors_origins)
        self.queue = Queue(self.loop, most=settings.max_waiting, most_per_key=settings.max_waiting_per_key)
        self.bodies = BodyBudget(settings)
        self.complaints = Complaints(self.loop.time)
        self.revoked = RevokedCalls(self.authenticator, self.signed_calls)

    def reconfigure(self, settings: GatewaySettings) -> None:
        """Change the settings while running; calls under way go on with what they have read already."""
        self.settings = settings
        self.bodies.reconfigure(settings)
        self.cross_origin = answer.CrossOrigin(settings.cors_origins)
        for link in self._links.values():
            link.pool.timeouts = self._timeouts()

    def _timeouts(self) -> Timeouts:
        settings = self.settings
        return Timeouts(
            connect=settings.connect_timeout_s,
            first_byte=settings.first_byte_timeout_s,
            idle=settings.idle_timeout_s,
        )

    # -- the door (lane.calls.Calls)

    def claims(self, url: bytes) -> bool:
        """Whether `url` is a model call's address."""
        return endpoints.find_endpoint(url) is not None

    def open(self, front: Front, url: bytes, headers: Headers, fields: dict[bytes, bytes]) -> Exchange | None:
        """Begin the exchange for a POST to a model call's address; None for any other address."""
        found = endpoints.find_endpoint(url)
        if found is None:
            return None
        endpoint, model_in_path = found
        exchange = Exchange(self, front, endpoint, model_in_path=model_in_path, fields=fields)
        if len(fields) != len(headers) and authenticate.has_doubled_credential(headers):
            exchange.is_key_settled = True
            exchange.refusal = authenticate.doubled_credential()
        elif authenticate.has_credential_in_address(url):
            exchange.is_key_settled = True
            exchange.refusal = authenticate.credential_in_address()
        elif b"signature-input" in fields:
            self.signed_calls.begin(exchange, url, headers)
        else:
            authenticate.begin(exchange)
        length = fields.get(b"content-length", b"" if b"transfer-encoding" in fields else b"0")
        if len(length) > 4 or not length:
            self._check_announced(exchange, int(length or 0))
        return exchange

    def _check_announced(self, exchange: Exchange, length: int) -> None:
        """Do not read a large body, or one of unknown size, for a call that is refused already, or without room for it."""
        refusal = exchange.refusal
        if length > self.settings.max_body_bytes:
            refusal = read.too_large(self.settings)
        elif refusal is None and length > self.bodies.small:
            refusal = exchange.hold(length)
        if refusal is not None:
            settle.refuse_unread(exchange, refusal)

    def held_for(self, subject: Subject, calls: Iterable[object]) -> list[CallUnderWay]:
        """What calls under way hold of the limits of `subject`, each with the time it was admitted.

        `calls` are those of the open connections; calls of callers who have left are added here.
        """
        held = [exchange.held_for(subject) for exchange in self._under_way(calls)]
        return [each for each in held if each is not None]

    async def end_revoked(self, calls: Iterable[object]) -> None:
        """End the calls under way that would be refused if they began now. Call it about twice a second."""
        if self.revoked.has_news:
            with contextlib.suppress(LingpaiError):  # the database is away: the next time will do
                await self.revoked.end(
                    self._under_way(calls) - self.counting
                )  # these are answered but for that

    def users_on(self, model_id: str, calls: Iterable[object]) -> set[str]:
        """The ids of the users with calls to a model under way; `calls` as above."""
        admitted = [exchange for exchange in self._under_way(calls) if exchange.is_admitted]
        callers = {exchange.principal for exchange in admitted if exchange.model.id == model_id}
        return {caller.user_id for caller in callers if caller is not None}

    def _under_way(self, calls: Iterable[object]) -> set[Exchange]:
        return {call for call in calls if isinstance(call, Exchange)} | self.counting

    def malformed(self, status: int, message: str) -> bytes:
        return answer.malformed(status, message, self.date_line)

    # -- backends

    def link(self, backend: Backend) -> Link:
        """The connections to `backend`, or to the replica of it that has least to do; made on first use."""
        if backend.is_replicated:
            backend = backend.pick(self._calls_to)
        link = self._links.get(backend.name)
        if link is None:
            link = self._links[backend.name] = self._connect(backend)
        return link

    def _calls_to(self, backend: Backend) -> int:
        link = self._links.get(backend.name)
        return 0 if link is None else link.pool.busy

    def sweep(self) -> None:
        """Look after time-outs. Call it every half second."""
        for link in self._links.values():
            link.pool.sweep()

    def retire_connections(self, backend: Backend) -> None:
        """Another process answers at the backend's address: send nothing more to the one of before."""
        link = self._links.get(backend.name)
        if link is not None:
            link.pool.retire()

    def renew_headers(self, backend: Backend) -> None:
        """The backend's own headers have changed, and its address has not: send the new ones from now on."""
        link = self._links.get(backend.name)
        if link is not None:
            self._links[backend.name] = self._make_link(backend, link.pool)

    async def drop(self, backend: Backend) -> None:
        """Forget a backend that is gone; its connections close."""
        for each in (backend, *backend.replicas):
            link = self._links.pop(each.name, None)
            if link is not None:
                await link.pool.close()

    async def close(self) -> None:
        """Close all connections to backends."""
        for link in self._links.values():
            await link.pool.close()
        self._links.clear()
        self.authenticator.close()

    def _connect(self, backend: Backend) -> Link:
        origin = Origin(
            backend.host,
            backend.port,
            tls=client_context() if backend.is_tls else None,
            socket_path=str(backend.socket_path) if backend.socket_path else None,
        )
        pool = UpstreamPool(
            origin, loop=self.loop, timeouts=self._timeouts(), may_retry=backend.kind != "worker"
        )
        return self._make_link(backend, pool)

    def _make_link(self, backend: Backend, pool: UpstreamPool) -> Link:
        default_port = 443 if backend.is_tls else 80
        host = f"[{backend.host}]" if ":" in backend.host else backend.host
        headers = {
            "host": host if backend.port in (0, default_port) else f"{host}:{backend.port}",
            "accept": "application/json, text/event-stream, */*;q=0.5",
            "accept-encoding": "identity",  # without it, any coding would do (RFC 9110, section 12.5.3)
            **{name.lower(): value for name, value in backend.headers.items()},
            **(_told_to_workers(self.settings) if backend.kind == "worker" else {}),
        }
        lines = answer.header_lines(headers)
        return Link(
            pool=pool,
            head=lines + b"content-type: application/json\r\n",
            untyped_head=lines,
            prefix=backend.path_prefix.encode(),
        )


def _told_to_workers(settings: GatewaySettings) -> dict[str, str]:
    """The settings that workers go by, as headers of every call: so one file rules all of them."""
    told = {"x-lingpai-max-inputs": str(settings.max_inputs)}
    if settings.strict_params:
        told["x-lingpai-strict-params"] = "1"
    if not settings.fetch_media:
        told["x-lingpai-fetch-media"] = "off"
    return told
