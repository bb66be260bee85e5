"""Calls under way, as limits that are set meanwhile see them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lingpai.quotas.amounts import Amounts
from lingpai.quotas.meter import Meter


def _nothing(meters: Sequence[Meter]) -> None:
    """What a call does about new limits when it is not told of them."""


class CallUnderWay(NamedTuple):
    """An admitted call whose record is still to come: when it was admitted, and what it took and reserved.

    `hold_to` is told of meters that were made meanwhile and hold a reservation for the call: its settlement has to
    settle that as well. It runs on the event loop.
    """

    admitted_at: float
    held: Amounts
    hold_to: Callable[[Sequence[Meter]], None] = _nothing


def hold_to_new(calls: Iterable[CallUnderWay], meters: Sequence[Meter]) -> None:
    """Let `meters`, which were made from a history with `calls`, have the reservations of those calls."""
    for call in calls:
        holding = [meter for meter in meters if meter.adopt(call.admitted_at, call.held[meter.index])]
        if holding:
            call.hold_to(holding)
