"""A slow, obviously right model of the limit engine: it keeps a list of all calls and adds up what they hold.

Every limit keeps a mark for what each call holds of it. What is used is the sum of the marks: in the current window for
calendar limits, of the open calls for concurrent ones. A smooth rate replays its marks as the textbook says it (GCRA,
virtual scheduling), in whole microseconds or exact fractions. `recount` checks the sums that are carried along.
"""

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from math import ceil
from typing import TypeAlias

from lingpai.quotas.amounts import UNITS, Amounts, Unit
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.windows import CalendarWindow, Duration, Window

Key: TypeAlias = tuple[Subject, Unit, Window | None]
Charges: TypeAlias = list[tuple[float, int]]

CLOCK_STEP_S = 60.0


class Mark:
    """What one call holds of one limit: how much, since when (or in the window that began when)."""

    __slots__ = ("amount", "at", "is_open", "reserved")

    def __init__(self, at: int, amount: int, *, is_open: bool) -> None:
        self.at = at
        self.amount = amount
        self.reserved = amount if is_open else 0
        self.is_open = is_open


class Call:
    """One admitted call; `charged` is what the usage record says once it is settled."""

    __slots__ = ("charged", "is_open", "marks", "reserved", "subjects", "time")

    def __init__(self, time: float, subjects: frozenset[Subject], reserved: Amounts) -> None:
        self.time = time
        self.subjects = subjects
        self.reserved = reserved
        self.charged = reserved
        self.is_open = True
        self.marks: list[tuple[SlowLimit, Mark]] = []


class SlowLimit:
    """`is_exact`: whether the engine has to agree to the unit; where not, it may only be stricter."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.amount = limit.amount
        self.index = UNITS.index(limit.unit)
        self.is_exact = True

    def see(self, now: float) -> int:
        """Look at the clock; answers what marks made now have for `at`."""
        return 0

    def used(self, now: float) -> int:
        raise NotImplementedError

    def remaining(self, now: float) -> int:
        return max(self.amount - self.used(now), 0)

    def hold(self, now: float, amount: int) -> Mark:
        raise NotImplementedError

    def room_beyond(self, mark: Mark, now: float) -> int:
        """How much more than it holds the call may be charged."""
        raise NotImplementedError

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        raise NotImplementedError

    def change(self, amount: int, now: float) -> None:
        self.amount = amount

    def recount(self) -> None:
        pass


class SlowConcurrency(SlowLimit):
    """The open calls."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.marks: set[Mark] = set()

    def used(self, now: float) -> int:
        return sum(mark.amount for mark in self.marks)

    def hold(self, now: float, amount: int) -> Mark:
        mark = Mark(0, amount, is_open=True)
        self.marks.add(mark)
        return mark

    def room_beyond(self, mark: Mark, now: float) -> int:
        return 0

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        self.marks.remove(mark)


class SlowCalendar(SlowLimit):
    """The sum of the marks in the window that began last; windows never go back, whatever the clock does."""

    def __init__(self, limit: Limit, window: CalendarWindow, charges: Charges, now: float) -> None:
        super().__init__(limit)
        self.window = window
        self.start, self.end = window.bounds(now)
        self.marks = [
            Mark(self.start, amount, is_open=False) for time, amount in charges if time >= self.start
        ]
        self.sums = Counter({self.start: sum(mark.amount for mark in self.marks)})

    def see(self, now: float) -> int:
        if now >= self.end:
            self.start, self.end = self.window.bounds(now)
        return self.start

    def used(self, now: float) -> int:
        return self.sums[self.see(now)]

    @property
    def reserved(self) -> int:
        return sum(mark.reserved for mark in self.marks if mark.at == self.start)

    def hold(self, now: float, amount: int) -> Mark:
        mark = Mark(self.see(now), amount, is_open=True)
        self.marks.append(mark)
        self.sums[mark.at] += amount
        return mark

    def room_beyond(self, mark: Mark, now: float) -> int:
        self.see(now)
        return max(self.amount - self.sums[mark.at], 0)

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        if self.limit.unit == "requests" and charged < mark.amount and call.time < mark.at:
            charged = (
                mark.amount
            )  # taken while the clock was set back: the engine cannot know in which window
        self.sums[mark.at] += charged - mark.amount
        mark.amount, mark.reserved, mark.is_open = charged, 0, False

    def recount(self) -> None:
        # What ended, and nobody can change any more, is nobody's business.
        self.marks = [mark for mark in self.marks if mark.at == self.start or mark.is_open]
        open_windows = {mark.at for mark in self.marks}
        assert self.sums[self.start] == sum(mark.amount for mark in self.marks if mark.at == self.start)
        self.sums = Counter({start: used for start, used in self.sums.items() if start in open_windows})


class SlowRateLimit(SlowLimit):
    """Replays marks and changes of the amount, in order; a clock set back takes the schedule along."""

    def __init__(self, limit: Limit, window: Duration, charges: Charges, now: float) -> None:
        super().__init__(limit)
        self.period = window.seconds * 1_000_000
        self.last = now
        self.turned_back = 0
        self.events: list[tuple[int, Mark | int]] = []
        self.began_with: int = limit.amount
        self.began_at: int | Fraction = self._after(charges, now)
        self.is_exact = not charges
        self._known: int | Fraction | None = None

    def _after(self, charges: Charges, now: float) -> int | Fraction:
        """Where history leaves the schedule: never further ahead than a period."""
        arrival: int | Fraction = 0
        for time, amount in charges:
            at = int(min(time, now) * 1e6)
            arrival = min(max(arrival, at) + amount * self._interval(self.amount), at + self.period)
        return arrival

    def _interval(self, amount: int) -> int | Fraction:
        whole, rest = divmod(self.period, amount)
        return Fraction(self.period, amount) if rest else whole

    def see(self, now: float) -> int:
        if now < self.last:
            if self.last - now < CLOCK_STEP_S:
                now = self.last  # an old reading: time stands still
            else:
                self.turned_back += int(self.last * 1e6) - int(now * 1e6)
                self.last = now
        return int(now * 1e6) + self.turned_back

    def arrival(self) -> int | Fraction:
        """The theoretical arrival time of the next one."""
        if self._known is None:
            self._known, _ = self._replay(self.events)
        return self._known

    def _replay(self, events: Iterable[tuple[int, Mark | int]]) -> tuple[int | Fraction, int]:
        arrival, amount = self.began_at, self.began_with
        for at, event in events:
            if isinstance(event, Mark):
                arrival = max(arrival, at) + event.amount * self._interval(amount)
            else:
                # As many are outstanding after the change as before.
                arrival = at + max(arrival - at, 0) * Fraction(amount, event)
                arrival = int(arrival) if arrival == int(arrival) else arrival
                amount = event
        return arrival, amount

    def used(self, now: float) -> int:
        at = self.see(now)
        return ceil(max(self.arrival() - at, 0) / Fraction(self._interval(self.amount)))

    def hold(self, now: float, amount: int) -> Mark:
        at = self.see(now)
        mark = Mark(at, amount, is_open=True)
        if amount:
            self.last = max(self.last, now)
            self.events.append((at, mark))
            self._known = None
        return mark

    def room_beyond(self, mark: Mark, now: float) -> int:
        return self.remaining(now)

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        if charged > mark.amount:
            self.hold(now, charged - mark.amount).is_open = False
        elif charged < mark.amount:
            # A slot of a request that is given back comes back by itself where the engine cannot tell more.
            self.is_exact &= self.limit.unit != "requests"
            mark.amount = charged
        mark.reserved, mark.is_open = 0, False
        self._known = None

    def change(self, amount: int, now: float) -> None:
        self.events.append((self.see(now), amount))
        self.amount = amount
        self._known = None

    def recount(self) -> None:
        """Replay once and for all what nobody can change any more."""
        settled = 0
        for _, event in self.events:
            if isinstance(event, Mark) and event.is_open:
                break
            settled += 1
        self.began_at, self.began_with = self._replay(self.events[:settled])
        self.events = self.events[settled:]


class SlowModel:
    """All calls, and all limits by subject, unit and window. It is the engine's usage history as well."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.limits: dict[Key, SlowLimit] = {}

    def charged_since(self, subject: Subject, unit: Unit, since: float) -> int:
        return sum(amount for _, amount in self.charges_since(subject, unit, since))

    def charges_since(self, subject: Subject, unit: Unit, since: float) -> Charges:
        index = UNITS.index(unit)
        return sorted(
            (call.time, call.charged[index])
            for call in self.calls
            if call.time >= since
            and not call.is_open
            and call.charged[index] > 0
            and subject in call.subjects
        )

    def load(self, subject: Subject, limits: Iterable[Limit], now: float) -> None:
        """Begin anew with what the calls were charged."""
        for key in [key for key in self.limits if key[0] == subject]:
            del self.limits[key]
        for limit in limits:
            self.limits[subject, limit.unit, limit.window] = self._slow_limit(subject, limit, now)

    def _slow_limit(self, subject: Subject, limit: Limit, now: float) -> SlowLimit:
        if limit.window is None:
            return SlowConcurrency(limit)
        charges = self.charges_since(subject, limit.unit, 0.0)
        if isinstance(limit.window, CalendarWindow):
            return SlowCalendar(limit, limit.window, charges, now)
        return SlowRateLimit(limit, limit.window, charges, now)

    def grant(self, limits: Iterable[SlowLimit], now: float, least: Amounts, most: Amounts) -> Amounts | None:
        """What a call is given: the most of each unit that all its limits have left; None when that is too little."""
        given = list(most)
        for limit in limits:
            given[limit.index] = min(given[limit.index], limit.remaining(now))
        if any(amount < wanted for amount, wanted in zip(given, least, strict=True)):
            return None
        return Amounts(*given)

    def admit(
        self, limits: Iterable[SlowLimit], subjects: Iterable[Subject], now: float, taken: Amounts
    ) -> Call:
        call = Call(now, frozenset(subjects), taken)
        call.marks = [(limit, limit.hold(now, taken[limit.index])) for limit in limits]
        self.calls.append(call)
        return call

    def chargeable(self, call: Call, used: Amounts, now: float) -> Amounts:
        """What the call is charged: what it used, as far as every limit has what exceeds its reservation."""
        charged = list(used._replace(concurrent=0))
        for limit, mark in call.marks:
            beyond = charged[limit.index] - mark.amount
            if beyond > 0:
                charged[limit.index] = mark.amount + min(beyond, limit.room_beyond(mark, now))
        return Amounts(*charged)

    def settle(self, call: Call, charged: Amounts, now: float) -> None:
        for limit, mark in call.marks:
            limit.settle(mark, call, charged[limit.index], now)
        call.charged = charged
        call.is_open = False

    def forget_before(self, instant: float) -> None:
        """Drop the calls that no window can need any more."""
        self.calls = [call for call in self.calls if call.is_open or call.time >= instant]
