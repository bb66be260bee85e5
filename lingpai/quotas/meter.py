"""What all kinds of counters have in common.

A meter counts what one subject uses of one unit against one limit. The limiter asks every meter of a call for room and
only then takes from each, so that a refusal takes from none. All of it runs on the event loop, and nothing between
the question and the taking awaits: that is the whole of the locking.

Requests and concurrent requests are taken one at a time (`room`, `take`) and count at once. Tokens and money are
reserved before the call and settled after it (`remaining`, `reserve`, `settle`); both are part of what is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from lingpai.quotas.amounts import MONEY, UNITS, Unit, amount_text
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject

Value = TypeVar("Value")

HEADER_MONEY: Final = 1000
"""The nano amount that headers count money in: a millionth of the currency."""


class Meter(ABC):
    """Counts one unit that a subject uses over one window. Belongs to the event loop: not thread-safe.

    All instants are Unix seconds, money is in nano. `room`, `room_for` and whatever takes or ends are told the present.
    All else that is asked changes nothing, and may be asked with the time at which a call began, or any other.

    `amount` is `limit.amount`; `unit` and `index` say which field of `Amounts` is counted; `touched` is when something
    was last taken; `made_at` is when it came into memory (time.monotonic); `policy` and `item` are its parts of the
    headers `ratelimit-policy` and (with two numbers to fill in) `ratelimit`.

    `on_room`, when set, is called whenever something is given back or the amount is raised. That may be in the midst of
    a settlement, so it must do no more than take a note. It is not called when room comes back by itself.
    """

    __slots__ = (
        "__weakref__",
        "amount",
        "index",
        "item",
        "label",
        "limit",
        "made_at",
        "name",
        "on_room",
        "policy",
        "subject",
        "touched",
        "unit",
    )

    def __init__(self, limit: Limit, subject: Subject, *, label: str, now: float) -> None:
        self.limit = limit
        self.amount = limit.amount
        self.unit = limit.unit
        self.index = UNITS.index(limit.unit)
        self.subject = subject
        self.label = label
        self.touched = now
        self.made_at = 0.0
        self.on_room: Callable[[], None] | None = None
        self.rename(header_name(subject, limit))

    def rename(self, name: str) -> None:
        """What headers call the limit: visible ASCII without quotes."""
        self.name = name
        self.item = _item(name, self.unit)
        self._describe_policy()

    def _describe_policy(self) -> None:
        self.policy = _policy(self.name, self.unit, self.amount, self.window_seconds)

    def change_limit(self, limit: Limit, now: float) -> None:
        """Go on with another amount over the same window; what is used and what is reserved stays so."""
        is_raised = limit.amount > self.amount
        self.limit = limit
        self._change_amount(limit.amount, now)
        self._describe_policy()
        if is_raised and self.on_room is not None:
            self.on_room()

    @property
    @abstractmethod
    def window_seconds(self) -> int:
        """How long the window is; 0 when there is none."""

    @property
    @abstractmethod
    def used(self) -> int:
        """How much counted against the limit when it was last asked or used; `used_at` is up to date."""

    @property
    def reserved(self) -> int:
        """The part of `used` that calls under way have reserved and not settled; 0 for requests."""
        return 0

    @abstractmethod
    def room(self, now: float) -> bool:
        """Whether one more may be admitted at `now`."""

    @abstractmethod
    def take(self, now: float) -> None:
        """Count one. Only after `room` answered yes for the same `now`, with nothing in between."""

    @abstractmethod
    def give_back(self, admitted_at: float) -> None:
        """Uncount the one admitted at `admitted_at`, unless what it took has come back by itself since."""

    @abstractmethod
    def room_for(self, now: float) -> int:
        """How much may be reserved at `now`: `remaining`, for the present, which windows and schedules move on to."""

    def reserve(self, now: float, amount: int) -> None:
        """Count `amount`. Only after `room_for` answered at least as much for the same `now`."""
        for _ in range(amount):
            if self.room(now):
                self.take(now)

    def extra_room(self, admitted_at: float, reserved: int, now: float) -> int:  # noqa: ARG002  for those who reserve
        """By how much `settle` may charge more than the reservation of that time and size without going over."""
        return 0

    def extend(self, admitted_at: float, reserved: int, extra: int, now: float) -> None:  # noqa: B027  for those who reserve
        """Make the reservation of that time and size greater by `extra`, which is at most `extra_room`."""

    def adopt(self, admitted_at: float, amount: int) -> bool:  # noqa: ARG002  see above
        """Have a reservation for a call that was under way when this meter was made, and is counted already.

        Answers whether the call has to settle it; not where what it holds is in no window any more.
        """
        return True

    def warn_from_the_start(self, now: float) -> None:  # noqa: B027  for those who warn
        """Warn of all that has been passed with what is used for good, told or not.

        What was passed before a restart is told again, and at once: a crash may have lost it, and with nothing left
        there is no next time. Who listens drops repeats.
        """

    def settle(self, admitted_at: float, reserved: int, charged: int, now: float) -> None:  # noqa: ARG002  see above
        """End what was reserved (or taken) at `admitted_at`: `charged` of it stays used, the rest is given back.

        `charged` is at most `reserved` and `extra_room`. `now` is when what exceeds the reservation is taken.
        """
        for _ in range(reserved - charged):
            self.give_back(admitted_at)

    @abstractmethod
    def used_at(self, now: float) -> int:
        """How much counts against the limit at `now`; more than the amount after the amount was lowered."""

    @abstractmethod
    def remaining(self, now: float) -> int:
        """How much would be admitted if it all came at `now`."""

    @abstractmethod
    def left_and_wait(self, now: float) -> tuple[int, int]:
        """What headers need, in one cheap step: `remaining`, and whole seconds until more is there, rounded up.

        More is the whole amount (see `resets_at`), but the next one (see `free_at`) when nothing is left.
        """

    @abstractmethod
    def resets_at(self, now: float) -> float:
        """When the whole amount is available again, if nothing more is used."""

    @abstractmethod
    def free_at(self, now: float, amount: int = 1) -> float:
        """The earliest instant at which there is room for `amount`, exactly, if nothing is used or given back.

        For more than the limit ever gives: when the whole of it is there.
        """

    @abstractmethod
    def _change_amount(self, amount: int, now: float) -> None: ...


def header_name(subject: Subject, limit: Limit, *, with_zone: bool = False) -> str:
    """What headers call a limit: ``key-day``, ``key-day-tokens``, ``key-concurrent``, ``key-day@Europe/Berlin``."""
    parts = [subject[0].replace("_", "-")]
    if limit.window is not None:
        parts.append(str(limit.window) if with_zone else limit.window.name)
    if limit.unit != "requests":
        parts.append(limit.unit.casefold())
    return "-".join(parts)


def pop_oldest(reservations: dict[tuple[float, int], list[Value]], key: tuple[float, int]) -> Value | None:
    """Take out the oldest of the reservations of one time and size; None when there is none."""
    oldest = reservations.get(key)
    if oldest is None:
        return None
    found = oldest.pop(0)
    if not oldest:
        del reservations[key]
    return found


# Cached because a million keys share a handful of limits, and so the bytes.
@lru_cache(maxsize=4096)
def _item(name: str, unit: Unit) -> bytes:
    # Nobody knows when a call under way ends, so `t` is left out; `%.0a` swallows the second number.
    return f'"{name}";r=%d{"%.0a" if unit == "concurrent" else ";t=%d"}'.encode("ascii")


@lru_cache(maxsize=4096)
def _policy(name: str, unit: Unit, amount: int, seconds: int) -> bytes:
    # Of the registered quota units (draft-ietf-httpapi-ratelimit-headers, `qu`) requests are the default. Tokens and
    # money have none, and parameters of one's own take a prefix. `q` must be an integer: money is in millionths.
    if unit == "concurrent":
        return f'"{name}";q={amount};qu="concurrent-requests"'.encode("ascii")
    policy = f'"{name}";q={amount // HEADER_MONEY if unit in MONEY else amount};w={seconds}'
    if unit == "tokens":
        policy += ';lingpai-unit="tokens"'
    elif unit in MONEY:
        policy += f';lingpai-unit="{amount_text(HEADER_MONEY, unit)} {unit}"'
    return policy.encode("ascii")
