"""Which limits hold a call: those of the key, client, user and project, of the model, and of the user on the model.

The first come with the account. The others are looked up when an account first calls a model, and kept with it until
the catalog or the limits change; a call whose meters are not in memory yet waits for them.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lingpai.errors import LingpaiError
from lingpai.gateway import weigh
from lingpai.jobs.runner import JobRunner
from lingpai.quotas.amounts import MONEY
from lingpai.quotas.limit_set import NO_LIMITS, LimitSet, limit_set
from lingpai.quotas.loader import StaleLimitsError
from lingpai.quotas.meter import Meter
from lingpai.quotas.under_way import CallUnderWay
from lingpai.wire import tasks

if TYPE_CHECKING:
    from lingpai.catalog.interfaces import Model
    from lingpai.gateway.authenticate import Account
    from lingpai.gateway.exchange import Exchange

log = logging.getLogger("lingpai.gateway")

Entry = tuple[Any, tuple[str, ...], str]
"""A subject, its limits, and how messages call it."""


class LoadMeters(Protocol):
    """Brings the meters of a subject into memory (quotas' loader)."""

    def __call__(
        self, subject: Any, limits: tuple[str, ...], label: str, *, is_current: Callable[[], bool]
    ) -> Awaitable[tuple[Meter, ...]]:
        """The meters. Raises StaleLimitsError when `is_current` says so before they are attached."""


class Book(Protocol):
    """The limits of models, and of users on models (quotas' limit book)."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    def for_call(self, user_id: str, model_id: str, *, user_name: str = "") -> Sequence[Entry]:
        """The limits of a call beside those of its account; entries without limits let go of meters that were."""
        ...


class ModelAccess:
    """A model as one account calls it, and the limits of such calls; None until they are loaded."""

    __slots__ = ("limits", "model", "waiting")

    def __init__(self, model: "Model") -> None:
        self.model = model
        self.limits: LimitSet | None = None
        self.waiting: list[Exchange] | None = None


class CallLimits:
    """Finds the limits of calls. Belongs to the event loop."""

    def __init__(
        self,
        book: Book,
        load_meters: LoadMeters,
        *,
        let_go: Callable[[Any], None],
        generation: Callable[[], int],
        jobs: JobRunner,
    ) -> None:
        """`let_go` forgets the meters of a subject that has no limits (any more); it must not block.

        `generation` grows with every change to a key, user or project.
        """
        self.book = book
        self._load_meters = load_meters
        self._let_go = let_go
        self._generation = generation
        self._jobs = jobs

    def find(self, account: "Account", access: ModelAccess) -> LimitSet | None:
        """The limits of `account` on a model: at once where no meter has to be loaded, else None."""
        entries = self._entries(account, access)
        if any(limits for _, limits, _ in entries):
            return None
        for subject, _, _ in entries:
            self._let_go(subject)
        return _counting(account.meters, access.model)

    def load(self, exchange: "Exchange", access: ModelAccess) -> None:
        """Load the meters; every call that waits for them goes on then, begins anew, or is refused."""
        if access.waiting is not None:
            access.waiting.append(exchange)
            return
        access.waiting = [exchange]
        self._jobs.start("load a model's limits", self._load(exchange.account, access))

    async def _load(self, account: "Account", access: ModelAccess) -> None:
        refusal: LingpaiError | None = LingpaiError(
            "storage_unavailable",
            "The limits cannot be checked now. Try again.",
            headers={"retry-after": "1"},
        )
        try:
            access.limits = await self._read(account, access)
            refusal = None
        except LingpaiError as error:
            refusal = error
        except Exception:  # the outermost edge of a look-up: those who wait must hear of any failure
            log.exception("loading the limits of model %s failed", access.model.id)
        finally:
            waiting, access.waiting = access.waiting or (), None
            for exchange in waiting:
                exchange.limits_loaded(access.limits, refusal)

    async def _read(self, account: "Account", access: ModelAccess) -> LimitSet | None:
        """None when limits, keys or users change meanwhile: the account's own meters may be stale then, too."""
        is_current = partial(self._is_current, self.book.version, self._generation())
        meters = list(account.meters)
        try:
            for subject, limits, label in self._entries(account, access):
                meters += await self._load_meters(subject, limits, label, is_current=is_current)
        except StaleLimitsError:
            return None
        return _counting(meters, access.model)

    def _is_current(self, version: int, generation: int) -> bool:
        return version == self.book.version and generation == self._generation()

    def _entries(self, account: "Account", access: ModelAccess) -> Sequence[Entry]:
        caller = account.principal
        return self.book.for_call(caller.user_id, access.model.id, user_name=caller.user_name)


def under_way(exchange: "Exchange") -> CallUnderWay:
    """What an admitted call holds, for limits that are set meanwhile. One that nothing has weighed yet is weighed now."""
    if exchange.weight is None:
        body = exchange.endpoint.prepare(exchange)[1] if exchange.model.task in tasks.GENERATION else b"{}"
        try:
            weight = weigh.weigh(exchange, body)
        except LingpaiError:  # it would be refused now, but the backend has it already
            weight = weigh.weigh(exchange, b"{}")
        exchange.weight = weight._replace(answers=weigh.NO_ANSWER)  # the backend was told no length of ours
        exchange.reserved = weight.most
    return CallUnderWay(
        exchange.started_at, exchange.reserved, exchange.hold_to, held_in_the_end=lambda: exchange.reserved
    )


def _counting(meters: Sequence[Meter], model: "Model") -> LimitSet:
    """Those of `meters` that a call to `model` counts against: money only in the currency of its price."""
    currency = None if model.price is None else model.price.currency
    kept = [meter for meter in meters if meter.unit not in MONEY or meter.unit == currency]
    return limit_set(kept) if kept else NO_LIMITS
