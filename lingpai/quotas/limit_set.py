"""The meters that hold one call."""

from collections.abc import Iterable
from typing import Final

from lingpai.quotas.amounts import UNITS
from lingpai.quotas.meter import Meter

_REQUESTS: Final = UNITS.index("requests")
_CONCURRENT: Final = UNITS.index("concurrent")


class LimitSet:
    """All meters that a call is held to; made once per caller and model, and then only read.

    `weighs`: some count tokens or money, so the call has to be weighed and reserved for. `needs_settling`: some hold
    what has to be released when the call ends.
    """

    __slots__ = ("meters", "needs_settling", "weighs")

    def __init__(self, meters: Iterable[Meter]) -> None:
        self.meters = tuple(meters)
        units = {meter.index for meter in self.meters}
        self.weighs = bool(units - {_REQUESTS, _CONCURRENT})
        self.needs_settling = self.weighs or _CONCURRENT in units


def limit_set(meters: Iterable[Meter]) -> LimitSet:
    """The set of `meters`, for `MemoryLimiter.admit` and `reserve`."""
    return LimitSet(meters)


NO_LIMITS: Final = LimitSet(())
