"""Counts the calls that are under way."""

from typing import Final

from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import Meter

LOOK_AGAIN_S: Final = 1.0
"""When to look whether there is room, where nobody can know when a call under way ends."""


class ConcurrencyMeter(Meter):
    """At most `amount` calls at the same time; each gives its place back when it ends, by `settle`.

    Calls that were admitted before the limit was set do not count.
    """

    __slots__ = ("_used",)

    def __init__(self, limit: Limit, subject: Subject, *, label: str, now: float) -> None:
        self._used = 0
        super().__init__(limit, subject, label=label, now=now)

    @property
    def window_seconds(self) -> int:
        return 0

    @property
    def used(self) -> int:
        return self._used

    def room(self, now: float) -> bool:  # noqa: ARG002  a place does not depend on the time
        return self._used < self.amount

    def take(self, now: float) -> None:
        self._used += 1
        self.touched = now

    def give_back(self, admitted_at: float) -> None:  # noqa: ARG002  one place is like another
        if self._used > 0:
            self._used -= 1
            if self.on_room is not None:
                self.on_room()

    def adopt(self, admitted_at: float, amount: int) -> bool:  # noqa: ARG002  it does not count what came before
        return False

    def used_at(self, now: float) -> int:  # noqa: ARG002  as above
        return self._used

    def remaining(self, now: float) -> int:  # noqa: ARG002  as above
        return max(self.amount - self._used, 0)

    def room_for(self, now: float) -> int:  # noqa: ARG002  as above
        left = self.amount - self._used
        return left if left > 0 else 0  # noqa: FURB136  a call of max would cost as much as all else here

    def left_and_wait(self, now: float) -> tuple[int, int]:
        return self.remaining(now), 0

    def resets_at(self, now: float) -> float:
        """`now`: nobody can know when the calls end."""
        return now

    def free_at(self, now: float, amount: int = 1) -> float:
        """When to look again: whether there is room then, nobody can know."""
        return now if self.remaining(now) >= amount else now + LOOK_AGAIN_S

    def _change_amount(self, amount: int, now: float) -> None:  # noqa: ARG002  as above
        self.amount = amount
