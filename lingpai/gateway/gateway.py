"""The parts that the steps share, and the door through which calls come in."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lingpai.catalog.interfaces import Backend
from lingpai.catalog.service import Catalog
from lingpai.gateway import answer, authenticate, endpoints, read, settle
from lingpai.gateway.authenticate import Authenticator
from lingpai.gateway.exchange import Exchange
from lingpai.gateway.settings import GatewaySettings
from lingpai.lane.front import Front, Headers
from lingpai.lane.upstream import Origin, Receiver, Timeouts, UpstreamPool
from lingpai.metering.journal import Journal
from lingpai.principal import Principal
from lingpai.telemetry.metrics import CallMetrics
from lingpai.telemetry.tls import client_context


class Limiter(Protocol):
    """The limits, as far as a call in flight is concerned (quotas' limiter)."""

    def admit(self, meters: tuple[Any, ...], now: float) -> Any: ...
    def give_back(self, meters: tuple[Any, ...], admitted_at: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Link:
    """A backend's connections, and what every request to it begins with."""

    pool: UpstreamPool
    head: bytes
    prefix: bytes

    def send(self, path: bytes, body: bytes, receiver: Receiver, request_id: bytes) -> None:
        """Send a whole request (RFC 9112) to `path` below the backend's prefix; `receiver` gets the answer."""
        request = b"POST %b%b HTTP/1.1\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self.prefix, path, self.head, request_id, len(body), body,
        )  # fmt: skip
        self.pool.send(request, receiver)


@dataclass(slots=True, kw_only=True)
class Gateway:
    """Everything an exchange needs, given once."""

    settings: GatewaySettings
    loop: asyncio.AbstractEventLoop
    catalog: Catalog
    authenticator: Authenticator
    limiter: Limiter
    rate_limit_headers: Callable[[tuple[Any, ...], float], bytes]
    journal: Journal
    metrics: CallMetrics
    is_loading: Callable[[], bool]
    local_administrator: Principal | None = None
    date_line: answer.DateLine = field(default_factory=answer.DateLine)
    cross_origin: answer.CrossOrigin = field(init=False)
    _links: dict[str, Link] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cross_origin = answer.CrossOrigin(self.settings.cors_origins)

    # -- the door (lane.front.Calls)

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
        else:
            authenticate.begin(exchange)
        length = fields.get(b"content-length", b"" if b"transfer-encoding" in fields else b"0")
        if len(length) > 4 or not length:
            self._check_announced(exchange, int(length or 0))
        return exchange

    def _check_announced(self, exchange: Exchange, length: int) -> None:
        """Do not read a large body, or one of unknown size, for a call that is refused already."""
        if length > self.settings.max_body_bytes:
            settle.refuse_unread(exchange, read.too_large(self.settings))
        elif exchange.refusal is not None:
            settle.refuse_unread(exchange, exchange.refusal)

    def malformed(self, status: int, message: str) -> bytes:
        return answer.malformed(status, message)

    # -- backends

    def link(self, backend: Backend) -> Link:
        """The connections to `backend`, made on first use."""
        link = self._links.get(backend.name)
        if link is None:
            link = self._links[backend.name] = self._connect(backend)
        return link

    def sweep(self) -> None:
        """Look after time-outs. Call it every half second."""
        for link in self._links.values():
            link.pool.sweep()

    async def drop(self, backend: Backend) -> None:
        """Forget a backend that is gone; its connections close."""
        link = self._links.pop(backend.name, None)
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
        settings = self.settings
        timeouts = Timeouts(
            connect=settings.connect_timeout_s,
            first_byte=settings.first_byte_timeout_s,
            idle=settings.idle_timeout_s,
        )
        default_port = 443 if backend.is_tls else 80
        host = f"[{backend.host}]" if ":" in backend.host else backend.host
        headers = {
            "host": host if backend.port in (0, default_port) else f"{host}:{backend.port}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **{name.lower(): value for name, value in backend.headers.items()},
            **(
                {"x-lingpai-strict-params": "1"}
                if settings.strict_params and backend.kind == "worker"
                else {}
            ),
        }
        return Link(
            pool=UpstreamPool(origin, loop=self.loop, timeouts=timeouts, may_retry=backend.kind != "worker"),
            head=answer.header_lines(headers),
            prefix=backend.path_prefix.encode(),
        )
