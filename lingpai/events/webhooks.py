"""Webhooks: events are sent to the addresses in the settings, signed, and again until they arrive.

Each webhook has a courier of its own, so that one that is slow or away holds up no other. What is left to do is in the
database, so that a restart goes on; an event whose answer was lost is sent again with the same id.
"""

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2
from sqlalchemy.exc import OperationalError

from lingpai.events.endpoints import Endpoint
from lingpai.events.interfaces import TEST_TYPE, DeliveryState, Event
from lingpai.events.service import iso_utc
from lingpai.events.signing import signature_headers
from lingpai.events.store import Attempt, DueDelivery, SqlEventStore
from lingpai.ids import new_id
from lingpai.telemetry.tls import client_context

log = logging.getLogger("lingpai.events")

TIMEOUT_S: Final = 10.0
CONCURRENCY: Final = 4
"""Attempts to one webhook at the same time."""

RETRY_DELAYS_S: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""From one attempt to the next (the specification's example): ten attempts over three days, then the event is given up."""

_MOST_RETRY_AFTER_S: Final = 86_400
_PAUSE_S: Final = 5.0  # after a round that failed
_GONE: Final = "the receiver answered 410 (gone)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver answered: the status, or None and why there was none."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float = 0.0

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def words(self) -> str:
        """The answer in a few words of ours."""
        return self.error if self.error is not None else f"status {self.status}"

    @property
    def is_gone(self) -> bool:
        return self.status == 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying a webhook out."""

    webhook: str
    answer: Answer
    milliseconds: float


class WebhookClient:
    """Sends one message to one webhook. Follows no redirect, takes no proxy from the environment, reads no answer's body."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.time) -> None:
        """`timeout_s` bounds the whole of an attempt, from the look-up of the name to the answer's status."""
        self._timeout_s = timeout_s
        self._clock = clock
        # No connection is kept: the next event may be hours away, and each receiver is bounded by its courier.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx2.AsyncClient(
            timeout=None, limits=limits, verify=client_context(), trust_env=False, follow_redirects=False
        )

    async def send(self, endpoint: Endpoint, message_id: str, body: bytes) -> Answer:
        """Send `body`, signed, and say what was answered; never raises for what a receiver or the network does."""
        headers = {
            "content-type": "application/json",
            "user-agent": "Lingpai",
            **signature_headers(
                endpoint.keys, message_id=message_id, timestamp=int(self._clock()), body=body
            ),
        }
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", endpoint.url, content=body, headers=headers) as answer,
            ):
                return Answer(status=answer.status_code, retry_after_s=_retry_after(answer.headers))
        except TimeoutError:
            return Answer(error=f"no answer within {self._timeout_s:g} s")
        except httpx2.ConnectError:
            return Answer(error="cannot connect")
        except httpx2.HTTPError as error:
            # The class only: its words may repeat what the receiver sent
            return Answer(error=f"the exchange failed ({type(error).__name__})")

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()


class Courier:
    """Brings events to one webhook, a few at a time, the longest due first."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: SqlEventStore,
        client: WebhookClient,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = endpoint
        self._store = store
        self._client = client
        self._clock = clock
        self._is_woken = True
        self._look_at = 0.0
        self._is_gone = False

    def wake(self) -> None:
        """Look for new events in the next round."""
        self._is_woken = True

    async def deliver_due(self) -> None:
        """One round: everything that is due. Costs nothing while nothing is."""
        if not self._is_woken and self._look_at > self._clock():
            return
        self._is_woken = False
        self._look_at = self._clock() + _PAUSE_S  # in case that this round fails
        try:
            self._look_at = await self._deliver_all()
        except OperationalError:
            # Locked or away: what was sent and could not be noted is sent again, with the same id
            log.warning("webhook %s: the database cannot be used; trying again", self.endpoint.name)

    async def try_out(self) -> Trial:
        """Send a test message, once, and say what was answered."""
        event = Event(
            id=new_id("evt"),
            type=TEST_TYPE,
            occurred_at=self._clock(),
            message="This is a test of the webhook.",
            data={},
        )
        began = time.monotonic()
        answer = await self._client.send(self.endpoint, event.id, body_of(event))
        return Trial(
            webhook=self.endpoint.name, answer=answer, milliseconds=(time.monotonic() - began) * 1000
        )

    async def _deliver_all(self) -> float:
        """When to look again; infinity when nothing waits."""
        name = self.endpoint.name
        while due := await asyncio.to_thread(self._store.due, name, now=self._clock(), limit=CONCURRENCY):
            if self._is_gone:
                await asyncio.to_thread(self._store.give_up, webhook=name, error=_GONE)
            else:
                attempts = await asyncio.gather(*(self._attempt(delivery) for delivery in due))
                await asyncio.to_thread(self._store.note, name, attempts)
        next_at = await asyncio.to_thread(self._store.next_due_at, name)
        return math.inf if next_at is None else next_at

    async def _attempt(self, delivery: DueDelivery) -> Attempt:
        event = delivery.event
        answer = await self._client.send(self.endpoint, event.id, body_of(event))
        now = self._clock()
        next_at = self._next_at(answer, delivery.attempts, now)
        if next_at is not None:
            state: DeliveryState = "waiting"
        else:
            state = "delivered" if answer.is_success else "given_up"
        if state == "given_up":
            self._tell_given_up(event.id, answer)
        error = None if answer.is_success else answer.words
        return Attempt(
            event_id=event.id, state=state, at=now, next_at=next_at, status=answer.status, error=error
        )

    def _next_at(self, answer: Answer, failed_before: int, now: float) -> float | None:
        """When to try again after the given number of failures before this one; None: never."""
        if answer.is_success or answer.is_gone or failed_before >= len(RETRY_DELAYS_S):
            return None
        # Spread out, so that what failed together does not come back together
        delay = RETRY_DELAYS_S[failed_before] * random.uniform(1.0, 1.1)  # noqa: S311  not for secrets
        return now + max(delay, answer.retry_after_s)

    def _tell_given_up(self, event_id: str, answer: Answer) -> None:
        name = self.endpoint.name
        if answer.is_gone and not self._is_gone:
            self._is_gone = True
            log.warning("webhook %s answered 410 (gone): nothing is sent there until the next start", name)
        elif not answer.is_gone:
            log.warning("webhook %s: event %s is given up: %s", name, event_id, answer.words)


class Webhooks:
    """The couriers of all webhooks."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        store: SqlEventStore,
        *,
        make_client: Callable[[], WebhookClient] = WebhookClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # Without webhooks there is no client: it takes 40 ms and 2 MB to make one.
        self._client = client = make_client() if endpoints else None
        self.couriers: tuple[Courier, ...] = ()
        if client is not None:
            self.couriers = tuple(Courier(endpoint, store, client, clock=clock) for endpoint in endpoints)
        self._store = store

    def wake(self) -> None:
        """New events were stored."""
        for courier in self.couriers:
            courier.wake()

    async def give_up_removed(self) -> None:
        """Give up what waits for webhooks that are not in the settings any more."""
        names = [courier.endpoint.name for courier in self.couriers]
        count = await asyncio.to_thread(self._store.give_up, but=names, error="no longer in the settings")
        if count:
            log.warning("%d events waited for webhooks that are no longer in the settings; given up", count)

    async def try_out(self) -> list[Trial]:
        """Send a test message to every webhook, once, and say what was answered."""
        return list(await asyncio.gather(*(courier.try_out() for courier in self.couriers)))

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.close()


def body_of(event: Event) -> bytes:
    """What is sent: ``{"type", "timestamp", "data"}``, as the specification recommends."""
    subject = {} if event.subject is None else {"subject": event.subject[0], "subject_id": event.subject[1]}
    content = {
        "type": event.type,
        "timestamp": iso_utc(event.occurred_at),
        "data": {"message": event.message, **subject, **event.data},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from `Retry-After` (RFC 9110 section 10.2.3) where it is a number; a day at most."""
    text = headers.get("retry-after", "")
    return (
        float(min(int(text), _MOST_RETRY_AFTER_S))
        if text.isascii() and text.isdigit() and len(text) < 10
        else 0.0
    )
