"""What the two kinds of counters have in common.

A meter counts the requests of one subject against one limit. The limiter asks every meter of a call for `room` and
only then lets each `take`, so that a refusal takes from none. All of it runs on the event loop, and nothing between
the question and the taking awaits: that is the whole of the locking.
"""

from abc import ABC, abstractmethod
from functools import lru_cache

from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject


class Meter(ABC):
    """Counts the requests of one subject over one window. Belongs to the event loop: not thread-safe.

    All instants are Unix seconds. `amount` is `limit.amount`; `touched` is when a request was last taken; `policy` and
    `item` are its parts of the headers `ratelimit-policy` and (with two numbers to fill in) `ratelimit`.
    """

    __slots__ = ("__weakref__", "amount", "item", "label", "limit", "name", "policy", "subject", "touched")

    def __init__(self, limit: Limit, subject: Subject, *, label: str, now: float) -> None:
        self.limit = limit
        self.amount = limit.amount
        self.subject = subject
        self.label = label
        self.touched = now
        self.rename(f"{subject[0]}-{limit.window.name}")

    def rename(self, name: str) -> None:
        """What headers call the limit: visible ASCII without quotes."""
        self.name = name
        self.item = _item(name)
        self._describe_policy()

    def _describe_policy(self) -> None:
        self.policy = _policy(self.name, self.amount, self.window_seconds)

    def change_limit(self, limit: Limit, now: float) -> None:
        """Go on with another amount over the same window; what is used stays used."""
        self._change_amount(limit.amount, now)
        self.limit = limit
        self._describe_policy()

    @property
    @abstractmethod
    def window_seconds(self) -> int:
        """How long the window is."""

    @property
    @abstractmethod
    def used(self) -> int:
        """How many requests counted against the limit when it was last asked or used; `used_at` is up to date."""

    @abstractmethod
    def room(self, now: float) -> bool:
        """Whether one more request may be admitted at `now`."""

    @abstractmethod
    def take(self, now: float) -> None:
        """Count one request. Only after `room` answered yes for the same `now`, with nothing in between."""

    @abstractmethod
    def give_back(self, admitted_at: float) -> None:
        """Uncount the request admitted at `admitted_at`, unless what it took has come back by itself since."""

    @abstractmethod
    def used_at(self, now: float) -> int:
        """How many requests count against the limit at `now`; more than the amount after the amount was lowered."""

    @abstractmethod
    def remaining(self, now: float) -> int:
        """How many requests would be admitted if they all came at `now`."""

    @abstractmethod
    def left_and_wait(self, now: float) -> tuple[int, int]:
        """What headers need, in one cheap step: `remaining`, and whole seconds until more is there, rounded up.

        More is the whole amount (see `resets_at`), but the next request (see `free_at`) when nothing is left.
        """

    @abstractmethod
    def resets_at(self, now: float) -> float:
        """When the whole amount is available again, if nothing more is used."""

    @abstractmethod
    def free_at(self, now: float) -> float:
        """The earliest instant at which there is room, exactly: ``room(free_at(now))`` is true."""

    @abstractmethod
    def _change_amount(self, amount: int, now: float) -> None: ...


# Cached because a million keys share a handful of limits, and so the bytes.
@lru_cache(maxsize=4096)
def _item(name: str) -> bytes:
    return f'"{name}";r=%d;t=%d'.encode("ascii")


@lru_cache(maxsize=4096)
def _policy(name: str, amount: int, seconds: int) -> bytes:
    return f'"{name}";q={amount};w={seconds}'.encode("ascii")
