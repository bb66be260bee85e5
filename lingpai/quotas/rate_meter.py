"""Limits requests to a smooth rate: the generic cell rate algorithm. Tokens and money: weighing_rate_meter.

The algorithm is GCRA in its virtual scheduling form (ITU-T I.371, annex A; ATM Forum TM 4.1, section 4.4.5). With
`amount` requests per period P, the increment is T = P / amount and the tolerance is tau = P - T, so that after a pause
`amount` requests pass at once and then one every T. For a request at time t, with TAT the theoretical arrival time:

    room:  TAT - t <= tau
    take:  TAT = max(TAT, t) + T

Nothing is rounded but the reading of the clock, to the microsecond below. All else is integers, in units of a
microsecond divided by `amount`: there T is simply the period in microseconds, P is `amount` times that, and a time is
its microseconds times `amount`. `TAT - t`, the backlog, means the same for every amount when so expressed (a period
per request), which is what lets the amount change without losing what is used.
"""

from math import inf, nextafter
from typing import Final

from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.meter import Meter
from lingpai.quotas.windows import Duration

MICROSECONDS: Final = 1_000_000
CLOCK_STEP_S: Final = 60.0
"""A clock this much behind was set back. Less may be a caller whose `now` is old: for it, time stands still."""

_NONE_YET: Final = 1 << 100


class RateMeter(Meter):
    """At most `amount` requests at once, refilling evenly over the period.

    `backlog` is what history leaves behind at `now`: a period in microseconds for every one still counted.
    When the clock is set back, the schedule moves with it: what was used stays used, and refills from there. Only
    `room` and what takes do that, whose `now` is the present. Who merely asks may do so about a time long past: for
    them, what was used is what it was when something was last taken.
    """

    __slots__ = ("_at", "_final_until", "_lowest", "_period", "_run_since", "_seconds", "_tat", "_tolerance")

    def __init__(
        self, limit: Limit, window: Duration, subject: Subject, backlog: int, *, label: str, now: float
    ) -> None:
        self._seconds = window.seconds
        self._period = window.seconds * MICROSECONDS
        self._tolerance = (limit.amount - 1) * self._period
        self._at = int(now * 1e6) * limit.amount
        self._tat = self._at + backlog
        self._run_since = now
        self._final_until = -inf
        self._lowest = _NONE_YET
        super().__init__(limit, subject, label=label, now=now)

    @property
    def used(self) -> int:
        return self.used_at(self.touched)

    @property
    def window_seconds(self) -> int:
        return self._seconds

    def room(self, now: float) -> bool:
        if now < self.touched:
            now = self._behind(now)
        self._at = at = int(now * 1e6) * self.amount
        return self._tat - at <= self._tolerance

    def room_for(self, now: float) -> int:
        if now < self.touched:
            self._behind(now)
        return self.remaining(now)

    def take(self, now: float) -> None:
        if now > self.touched:  # noqa: PLR1730  a call of max costs as much as all else here
            self.touched = now
        backlog = self._tat - self._at
        if backlog < self._lowest:
            self._note_low(backlog)
        self._tat += self._period

    def give_back(self, admitted_at: float) -> None:
        """See `Meter.give_back`.

        Taking T off the schedule is right only if every request since has found a backlog of at least T: one that
        found less shows that the slot had come back by itself, and T would then let one request too many through.
        A run begins with the last request that found less than T; `_lowest` is the least that a later one found.
        Where this is too coarse to tell, the slot is left to come back by itself, which takes T: never over.
        """
        if admitted_at < self._run_since or admitted_at <= self._final_until:
            return
        self._tat -= self._period
        self._lowest -= self._period
        if self._lowest < self._period:
            self._final_until = self.touched
            self._lowest = _NONE_YET
        if self.on_room is not None:
            self.on_room()

    def adopt(self, admitted_at: float, amount: int) -> bool:  # noqa: ARG002  requests are one by one
        # What others found since is not known, so it is not given back; also when it is of before the clock was set back.
        self._forget_what_was_found()
        self._final_until = max(self._final_until, admitted_at)
        return True

    def _note_low(self, backlog: int) -> None:
        if backlog >= self._period:
            self._lowest = backlog
            return
        self._run_since = self.touched
        self._lowest = _NONE_YET
        if backlog < 0:
            self._tat = self._at

    def used_at(self, now: float) -> int:
        return -(-self._backlog(now) // self._period)

    def remaining(self, now: float) -> int:
        return max(self.amount - self.used_at(now), 0)

    def left_and_wait(self, now: float) -> tuple[int, int]:
        if now < self.touched:  # noqa: PLR1730  as above
            now = self.touched
        backlog = self._tat - int(now * 1e6) * self.amount
        if backlog <= 0:
            return self.amount, 0
        left = self.amount + -backlog // self._period
        if left <= 0:
            left = 0
            backlog -= self._tolerance
        return left, -(-backlog // (self.amount * MICROSECONDS))

    def resets_at(self, now: float) -> float:
        backlog = self._backlog(now)
        return self._instant(self._tat - self._turned_back(now)) if backlog > 0 else now

    def free_at(self, now: float, amount: int = 1) -> float:
        most = max(self.amount - amount, 0) * self._period
        if self._backlog(now) <= most:
            return now
        return self._instant(self._tat - most - self._turned_back(now))

    def _backlog(self, now: float) -> int:
        # Wherever the schedule would move to, what is left of it at an earlier time is what was left at `touched`.
        if now < self.touched:  # noqa: PLR1730  as above
            now = self.touched
        return max(self._tat - int(now * 1e6) * self.amount, 0)

    def _turned_back(self, now: float) -> int:
        """How far the schedule would move if something came at `now`."""
        if self.touched - now < CLOCK_STEP_S:
            return 0
        return (int(self.touched * 1e6) - int(now * 1e6)) * self.amount

    def _instant(self, scaled: int) -> float:
        """The first clock reading that is not before the scaled time."""
        microsecond = -(-scaled // self.amount)
        instant = microsecond / 1e6
        while int(instant * 1e6) < microsecond:
            instant = nextafter(instant, inf)
        return instant

    def _behind(self, now: float) -> float:
        """What to take for the time when the clock shows less than at the last request."""
        if self.touched - now < CLOCK_STEP_S:
            return self.touched
        self._tat -= self._turned_back(now)
        self._final_until = max(self._final_until, self.touched)
        self._run_since = self.touched = now
        return now

    def _change_amount(self, amount: int, now: float) -> None:
        backlog, most = self._backlog(now), amount * self._period
        if backlog > most:
            # More than the new amount can never be owed, as after a restart: nobody waits longer than a period. What
            # was taken until now is not given back any more, because part of it is forgiven.
            backlog = most
            self._forget_what_was_found()
        self.amount = amount
        self._tolerance = (amount - 1) * self._period
        self._tat = int(max(now, self.touched) * 1e6) * amount + backlog

    def _forget_what_was_found(self) -> None:
        """Nothing that was taken until now is given back any more; it flows back."""
        self._final_until = max(self._final_until, self.touched)
        self._lowest = _NONE_YET
