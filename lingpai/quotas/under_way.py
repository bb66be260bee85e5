"""Calls under way, as limits that are set meanwhile see them."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from lingpai.quotas.amounts import Amounts
from lingpai.quotas.meter import Meter


def _nothing(meters: Sequence[Meter]) -> None:
    """What a call does about new limits when it is not told of them."""


class CallUnderWay(NamedTuple):
    """An admitted call whose record is still to come: when it was admitted, and what it took and reserved.

    `hold_to` is told of meters that were made meanwhile and hold a reservation for the call: its settlement has to
    settle that as well. It runs on the event loop. `held_in_the_end`, asked when the call is over, answers no less than it
    was charged.
    """

    admitted_at: float
    held: Amounts
    hold_to: Callable[[Sequence[Meter]], None] = _nothing
    held_in_the_end: Callable[[], Amounts] | None = None

    @property
    def identity(self) -> Hashable:
        """The same whenever the same call is told of, whatever it holds by then."""
        return self.admitted_at, self.hold_to

    def ended(self, now: float) -> "CallUnderWay":
        """The call once it is over, for meters that were made from a history with what it held before.

        They settle it at once: with what it held then, or with what it was charged where that is more.
        """
        return self._replace(hold_to=partial(_settle, self, now))


def hold_to_new(calls: Iterable[CallUnderWay], meters: Sequence[Meter]) -> None:
    """Let `meters`, which were made from a history with `calls`, have the reservations of those calls."""
    for call in calls:
        holding = [meter for meter in meters if meter.adopt(call.admitted_at, call.held[meter.index])]
        if holding:
            call.hold_to(holding)


def _settle(call: CallUnderWay, now: float, meters: Sequence[Meter]) -> None:
    charged = call.held if call.held_in_the_end is None else call.held_in_the_end()
    for meter in meters:
        held = call.held[meter.index]
        meter.settle(call.admitted_at, held, max(held, charged[meter.index]), now)
