"""Limits tokens or money to a smooth rate: the algorithm of rate_meter for any amount, with reservations.

Giving back S of what was reserved at a time must leave the schedule as if S less had been reserved. Requests that came
since found a backlog (before they took). While each found at least S, it would have found S less, and everything after
it is S earlier. One that found only B < S would have found an idle schedule and begun at its own time: from there on
everything is B earlier, not S. So what may be taken off is the least of S and of all that was found since. That is
exact, and it makes what the others found since less by as much.
"""

from bisect import bisect_right
from typing import Final, TypeAlias

from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import pop_oldest
from lingpai.quotas.rate_meter import RateMeter
from lingpai.quotas.windows import Duration

MOST_MARKS: Final = 256

_Parts: TypeAlias = tuple[tuple[int, int], ...]
"""A reservation that was extended: the numbers and amounts of its takings."""


class WeighingRateMeter(RateMeter):
    """At most `amount` at once, settled and reserved together, refilling evenly over the period.

    What a reservation holds refills while the call is under way, like all that is used. What a call used beyond its
    reservation is taken when it is settled. Reservations are told apart by time and size; two of the same can stand for
    each other.
    """

    __slots__ = ("_found", "_open", "_reserved", "_taken")

    def __init__(
        self, limit: Limit, window: Duration, subject: Subject, backlog: int, *, label: str, now: float
    ) -> None:
        self._taken = self._reserved = 0
        self._open: dict[tuple[float, int], list[int | _Parts]] = {}
        self._found = _Found()
        super().__init__(limit, window, subject, backlog, label=label, now=now)

    @property
    def reserved(self) -> int:
        return min(self._reserved, self.used)

    def take(self, now: float) -> None:
        self.reserve(now, 1)

    def give_back(self, admitted_at: float) -> None:
        self.settle(admitted_at, 1, 0, admitted_at)

    def reserve(self, now: float, amount: int) -> None:
        self._push(now, amount)
        self._reserved += amount
        self._open.setdefault((now, amount), []).append(self._taken)

    def extra_room(self, admitted_at: float, reserved: int, now: float) -> int:
        return self.remaining(now) if (admitted_at, reserved) in self._open else 0

    def extend(self, admitted_at: float, reserved: int, extra: int, now: float) -> None:
        number = pop_oldest(self._open, (admitted_at, reserved)) if extra else None
        if number is None:
            return
        parts = ((number, reserved),) if isinstance(number, int) else number
        self._push(now, extra)
        self._reserved += extra
        self._open.setdefault((admitted_at, reserved + extra), []).append((*parts, (self._taken, extra)))

    def adopt(self, admitted_at: float, amount: int) -> bool:
        """See `Meter.adopt`. What others found since is not known, so nothing is given back; it flows back."""
        self._reserved += amount
        self._open.setdefault((admitted_at, amount), []).append(self._taken)
        self._forget_what_was_found()
        return True

    def settle(self, admitted_at: float, reserved: int, charged: int, now: float) -> None:
        number = pop_oldest(self._open, (admitted_at, reserved))
        if number is None:
            return
        self._reserved -= reserved
        if charged > reserved:
            self._push(now, charged - reserved)
        elif charged < reserved:
            self._give_back_of(number, reserved, reserved - charged)
        if not self._open:
            self._found.clear()

    def _push(self, now: float, amount: int) -> None:
        if amount == 0:
            return
        if now < self.touched:
            now = self._behind(now)
        self.touched = now
        at = int(now * 1e6) * self.amount
        self._tat = max(self._tat, at)
        self._taken += 1
        self._found.note(self._taken, self._tat - at)
        self._tat += amount * self._period

    def _forget_what_was_found(self) -> None:
        self._taken += 1
        self._found.note(self._taken, 0)

    def _give_back_of(self, number: int | _Parts, reserved: int, amount: int) -> None:
        for part, size in ((number, reserved),) if isinstance(number, int) else reversed(number):
            self._release(part, min(size, amount) * self._period)
            amount -= min(size, amount)

    def _release(self, number: int, backlog: int) -> None:
        backlog = self._found.lower_after(number, backlog)
        self._tat -= backlog
        if backlog and self.on_room is not None:
            self.on_room()


class _Found:
    """The least backlog that was found since any of the takings, which are numbered in their order.

    `_numbers` and `_least` ascend together: an entry that a later one undercuts (or equals) says nothing any more.
    Beyond MOST_MARKS the two oldest entries become one, as if both had found the lesser: what is given back can only
    become less.
    """

    __slots__ = ("_least", "_numbers")

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._least: list[int] = []

    def clear(self) -> None:
        self._numbers.clear()
        self._least.clear()

    def note(self, number: int, backlog: int) -> None:
        self._drop_undercut(len(self._least), backlog)
        self._numbers.append(number)
        self._least.append(backlog)
        if len(self._numbers) > MOST_MARKS:
            del self._numbers[0], self._least[1]

    def lower_after(self, number: int, backlog: int) -> int:
        """How much of `backlog` may be taken off what that one took; it is noted as taken off."""
        later = bisect_right(self._numbers, number)
        if later == len(self._numbers):
            return backlog
        backlog = min(backlog, self._least[later])
        for place in range(later, len(self._least)):
            self._least[place] -= backlog
        self._drop_undercut(later, self._least[later])
        return backlog

    def _drop_undercut(self, end: int, backlog: int) -> None:
        """Drop the entries before the place `end` that are not below `backlog`."""
        start = end
        while start and self._least[start - 1] >= backlog:
            start -= 1
        del self._numbers[start:end], self._least[start:end]
