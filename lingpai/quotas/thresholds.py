"""Tells somebody when most of a limit is used."""

from collections.abc import Callable, Iterable
from typing import Final

from lingpai.quotas.meter import Meter

NEVER: Final = 1 << 100
"""More than any use of any limit."""


def _nothing(meter: Meter, percent: int, now: float) -> None:
    """What happens at a threshold until somebody asks to be told."""


class Thresholds:
    """The percentages at which calendar limits warn; shared by all meters of a limiter.

    `on_threshold` is called with the meter, the percentage and the time, on the event loop and in the midst of an
    admission or a settlement: it must do no more than take a note.
    """

    __slots__ = ("_percents", "on_threshold")

    def __init__(self, percents: Iterable[int] = ()) -> None:
        self._percents = sorted(set(percents))
        self.on_threshold: Callable[[Meter, int, float], None] = _nothing

    def next_above(self, used: int, amount: int) -> int:
        """The least use at which there is the next warning; NEVER when all of them are behind."""
        return next((least for _, least in self._steps(amount) if least > used), NEVER)

    def pass_up_to(self, used: int, *, beginning: int, meter: Meter, now: float) -> int:
        """Warn of every percentage from the use `beginning` to `used`, and answer where the next one is."""
        for percent, least in self._steps(meter.amount):
            if beginning <= least <= used:
                self.on_threshold(meter, percent, now)
        return self.next_above(used, meter.amount)

    def _steps(self, amount: int) -> Iterable[tuple[int, int]]:
        return ((percent, -(-percent * amount // 100)) for percent in self._percents)


NO_THRESHOLDS: Final = Thresholds()
