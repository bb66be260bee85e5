"""A slow, obviously right model of the limit engine: it keeps a list of all calls and adds up what they hold.

Every limit keeps a mark for what each call holds of it. What is used is the sum of the marks: in the current window for
calendar limits, of the open calls for concurrent ones. A smooth rate replays its marks as the textbook says it (GCRA,
virtual scheduling), in whole microseconds or exact fractions. `recount` checks the sums that are carried along.

Where the engine may be stricter than the truth, the model keeps the strictest account as well that the engine may give
(`is_strict`): a rate that was full when it was loaded, and of which some things are never given back. What the engine
says must lie between both, so where they are the same, as they are again after a rest, it must say exactly that.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from fractions import Fraction
from functools import cache
from math import inf
from typing import TypeAlias
from zoneinfo import ZoneInfo

from lingpai.quotas.amounts import UNITS, Amounts, Unit
from lingpai.quotas.grammar import Limit
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.windows import CalendarWindow, Duration, Window

Key: TypeAlias = tuple[Subject, Unit, Window | None]
Charges: TypeAlias = list[tuple[float, int]]

History: TypeAlias = list[tuple[float, float, int]]
"""When calls were admitted, when they ended, and what they were charged."""

CLOCK_STEP_S = 60.0
LONGEST_CALL_S = 3600.0
MINUTE_S = 60
QUARTER_S = 900
"""Clocks change at such times, in all zones and years that are played."""


def window_of(window: CalendarWindow, now: float) -> tuple[int, int]:
    """Found by walking: minute by minute while the clock shows the same hour, or from day to day."""
    if window.unit in {"minute", "hour"}:
        return _clock_window(window.unit, window.zone, int(now // MINUTE_S))
    first = datetime.fromtimestamp(now, ZoneInfo(window.zone)).date()
    while midnight(window.zone, first + timedelta(days=1)) <= now:
        first += timedelta(days=1)  # the clock was set back to the evening of the day before
    while not _begins(window, first):
        first -= timedelta(days=1)
    after = first + timedelta(days=1)
    while not _begins(window, after):
        after += timedelta(days=1)
    return midnight(window.zone, first), midnight(window.zone, after)


def _begins(window: CalendarWindow, day: date) -> bool:
    if window.unit == "day":
        return True
    return day.isoweekday() == 1 if window.unit == "week" else day.day == 1


@cache
def midnight(zone: str, day: date) -> int:
    """The first instant at which it is that day in the zone: some quarter of an hour after the noon before."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    instant = int(noon.timestamp())
    while datetime.fromtimestamp(instant, ZoneInfo(zone)).date() < day:
        instant += QUARTER_S
    return instant


@cache
def _clock_window(unit: str, zone: str, minute: int) -> tuple[int, int]:
    """The minutes around `minute` (since 1970) in which the zone's clock shows the same hour, and was not set between."""
    shown = _shown(unit, zone, minute)
    first = last = minute
    while _shown(unit, zone, first - 1) == shown:
        first -= 1
    while _shown(unit, zone, last + 1) == shown:
        last += 1
    return first * MINUTE_S, (last + 1) * MINUTE_S


@cache
def _shown(unit: str, zone: str, minute: int) -> tuple[object, ...]:
    wall = datetime.fromtimestamp(minute * MINUTE_S, ZoneInfo(zone))
    return (wall.date(), wall.hour, wall.minute if unit == "minute" else 0, wall.utcoffset())


class Mark:
    """What one call holds of one limit: how much, since when (or in the window that began when).

    `most` is what the engine may believe it to be; `later` is what was added to it at other times.
    """

    __slots__ = ("amount", "at", "is_forgiven", "is_kept", "is_open", "later", "most", "reserved")

    def __init__(self, at: int, amount: int, *, is_open: bool) -> None:
        self.at = at
        self.amount = self.most = amount
        self.reserved = amount if is_open else 0
        self.is_open = is_open
        self.is_kept = self.is_forgiven = False
        self.later: list[Mark] = []

    @property
    def whole(self) -> int:
        return self.amount + sum(mark.amount for mark in self.later)


class Call:
    """One admitted call; `charged` is what the usage record says once it is settled."""

    __slots__ = ("charged", "ended_at", "is_open", "marks", "reserved", "subjects", "time")

    def __init__(self, time: float, subjects: frozenset[Subject], reserved: Amounts) -> None:
        self.time = time
        self.subjects = subjects
        self.reserved = reserved
        self.charged = reserved
        self.ended_at = time
        self.is_open = True
        self.marks: list[tuple[SlowLimit, Mark]] = []


class SlowLimit:
    """What one limit holds. The engine may be stricter, up to what `is_strict` gives; it may never be more generous."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.amount = limit.amount
        self.index = UNITS.index(limit.unit)

    @property
    def is_certain(self) -> bool:
        """Whether the engine has to say exactly the same."""
        return True

    def see(self, now: float) -> int:
        """Look at the clock; answers what marks made now have for `at`."""
        return 0

    def used(self, now: float, *, is_strict: bool = False) -> int:
        raise NotImplementedError

    def remaining(self, now: float, *, is_strict: bool = False) -> int:
        return max(self.amount - self.used(now, is_strict=is_strict), 0)

    def hold(self, now: float, amount: int) -> Mark:
        raise NotImplementedError

    def adopt(self, call: Call) -> Mark | None:
        """The mark of a call that began before the limit was set; None where it holds nothing of it."""
        raise NotImplementedError

    def room_beyond(self, mark: Mark, now: float, *, is_strict: bool = False) -> int:
        """How much more than it holds the call may be charged."""
        raise NotImplementedError

    def extend(self, mark: Mark, extra: int, now: float) -> None:
        """The call holds so much more."""
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

    def used(self, now: float, *, is_strict: bool = False) -> int:
        return sum(mark.amount for mark in self.marks)

    def hold(self, now: float, amount: int) -> Mark:
        mark = Mark(0, amount, is_open=True)
        self.marks.add(mark)
        return mark

    def adopt(self, call: Call) -> Mark | None:
        return None

    def room_beyond(self, mark: Mark, now: float, *, is_strict: bool = False) -> int:
        return 0

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        self.marks.remove(mark)


class SlowCalendar(SlowLimit):
    """The sum of the marks in the window that began last; windows never go back, whatever the clock does."""

    def __init__(self, limit: Limit, window: CalendarWindow, charges: Charges, now: float) -> None:
        super().__init__(limit)
        self.window = window
        self.start, self.end = window_of(window, now)
        self.marks = [
            Mark(self.start, amount, is_open=False) for time, amount in charges if time >= self.start
        ]
        self.sums = Counter({self.start: sum(mark.amount for mark in self.marks)})

    def see(self, now: float) -> int:
        if now >= self.end:
            self.start, self.end = window_of(self.window, now)
        return self.start

    def used(self, now: float, *, is_strict: bool = False) -> int:
        return self.sums[self.see(now)]

    @property
    def reserved(self) -> int:
        return sum(mark.reserved for mark in self.marks if mark.at == self.start)

    def hold(self, now: float, amount: int) -> Mark:
        mark = Mark(self.see(now), amount, is_open=True)
        self.marks.append(mark)
        self.sums[mark.at] += amount
        return mark

    def adopt(self, call: Call) -> Mark | None:
        if call.time < self.start:
            return None
        mark = Mark(self.start, call.reserved[self.index], is_open=True)
        self.marks.append(mark)
        self.sums[mark.at] += mark.amount
        if self.limit.unit == "requests" and call.time >= self.end:
            mark.is_open = False  # admitted before the clock was set back: as below
            return None
        return mark

    def room_beyond(self, mark: Mark, now: float, *, is_strict: bool = False) -> int:
        self.see(now)
        return max(self.amount - self.sums[mark.at], 0)

    def extend(self, mark: Mark, extra: int, now: float) -> None:
        mark.amount += extra
        mark.reserved += extra
        self.sums[mark.at] += extra

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

    def __init__(self, limit: Limit, window: Duration, history: History, now: float) -> None:
        super().__init__(limit)
        self.period = window.seconds * 1_000_000
        self.last = now
        self.turned_back = 0
        self.events: list[tuple[int, Mark | int]] = []
        self.began_with: int = limit.amount
        self.final_until = -inf
        self.began_at = self.began_at_most = self._after(history, now)
        if self._is_in_doubt(history, now):
            self.began_at_most = int(now * 1e6) + self.period
        self._known: int | Fraction | None = None
        self._known_most: int | Fraction | None = None

    def _is_in_doubt(self, history: History, now: float) -> bool:
        """Whether the engine may take the past for busier than it was: the period before those it replays was not
        quiet, the clock was set back, or a call took longer than it looks back.
        """
        is_weighed = self.limit.unit != "requests"
        replayed_s = 2 * self.period / 1e6 + (LONGEST_CALL_S if is_weighed else 0)
        for time, end, _ in history:
            if now - replayed_s - self.period / 1e6 - 1 <= time <= now - replayed_s + 1:
                return True
            if end > now or end < time or end - time > LONGEST_CALL_S:
                return True
        return False

    def _after(self, history: History, now: float) -> int | Fraction:
        """Where history leaves the schedule: never further ahead than a period.

        Tokens and money are used until a call ends, or until it has run as long as is looked back.
        """
        arrival: int | Fraction = 0
        is_weighed = self.limit.unit != "requests"
        times = sorted(
            (min(end, time + LONGEST_CALL_S) if is_weighed else time, amount) for time, end, amount in history
        )
        for time, amount in times:
            at = int(min(time, now) * 1e6)
            arrival = min(max(arrival, at) + amount * _interval(self.period, self.amount), at + self.period)
        return arrival

    def see(self, now: float) -> int:
        if now < self.last:
            if self.last - now < CLOCK_STEP_S:
                now = self.last  # an old reading: time stands still
            else:
                self.turned_back += int(self.last * 1e6) - int(now * 1e6)
                self.final_until = max(self.final_until, self.last)
                self.last = now
        return int(now * 1e6) + self.turned_back

    def arrival(self, *, is_strict: bool = False) -> int | Fraction:
        """The theoretical arrival time of the next one."""
        if self._known is None:
            self._known, _ = self._replay(self.events)
        if not is_strict:
            return self._known
        if self._known_most is None:
            is_same = self.began_at == self.began_at_most and not any(
                isinstance(event, Mark) and event.amount != event.most for _, event in self.events
            )
            self._known_most = self._known if is_same else self._replay(self.events, is_strict=True)[0]
        return self._known_most

    @property
    def is_certain(self) -> bool:
        return self.arrival() == self.arrival(is_strict=True)

    def _change_events(self) -> None:
        self._known = self._known_most = None

    def _replay(
        self, events: Iterable[tuple[int, Mark | int]], *, is_strict: bool = False
    ) -> tuple[int | Fraction, int]:
        arrival, amount = self.began_at_most if is_strict else self.began_at, self.began_with
        for at, event in events:
            if isinstance(event, Mark):
                taken = event.most if is_strict else event.amount
                arrival = max(arrival, at) + taken * _interval(self.period, amount)
            else:
                # As many are outstanding after the change as before, but nobody waits longer than a period.
                arrival = at + min(max(arrival - at, 0) * Fraction(amount, event), self.period)
                arrival = int(arrival) if arrival == int(arrival) else arrival
                amount = event
        return arrival, amount

    def used(self, now: float, *, is_strict: bool = False) -> int:
        backlog = self.arrival(is_strict=is_strict) - self.see(now)
        return -(-backlog // _interval(self.period, self.amount)) if backlog > 0 else 0

    def hold(self, now: float, amount: int) -> Mark:
        at = self.see(now)
        mark = Mark(at, amount, is_open=True)
        if amount:
            self.last = max(self.last, now)
            self.events.append((at, mark))
            self._known, self._known_most = (
                self._and_then(self._known, mark),
                self._and_then(self._known_most, mark),
            )
        return mark

    def _and_then(self, arrival: int | Fraction | None, mark: Mark) -> int | Fraction | None:
        if arrival is None:
            return None
        return max(arrival, mark.at) + mark.amount * _interval(self.period, self.amount)

    def adopt(self, call: Call) -> Mark | None:
        """History has it already, and keeps it."""
        mark = Mark(0, call.reserved[self.index], is_open=True)
        mark.is_kept = True
        self.final_until = max(self.final_until, self.last, call.time)
        return mark

    def room_beyond(self, mark: Mark, now: float, *, is_strict: bool = False) -> int:
        return self.remaining(now, is_strict=is_strict)

    def extend(self, mark: Mark, extra: int, now: float) -> None:
        mark.later.append(self.hold(now, extra))

    def settle(self, mark: Mark, call: Call, charged: int, now: float) -> None:
        """What was not used is taken off what was taken last, as if less had been taken then."""
        beyond = charged - mark.whole
        if beyond > 0:
            self.hold(now, beyond).is_open = False
        for part in (*reversed(mark.later), mark):
            unused = min(-beyond, part.amount)
            if unused > 0:
                beyond += unused
                self._give_back(part, unused, call)
            part.reserved, part.is_open = 0, False
        self._change_events()

    def _give_back(self, mark: Mark, unused: int, call: Call) -> None:
        if mark.is_kept:
            return
        mark.amount -= unused
        is_told = not mark.is_forgiven
        if self.limit.unit == "requests":
            # It comes back by itself where the engine cannot tell more; but the last one can always be told.
            is_told = is_told and self._is_last(mark, call)
            self.final_until = max(self.final_until, self.last)
        if is_told:
            mark.most -= unused

    def _is_last(self, mark: Mark, call: Call) -> bool:
        return self.events[-1][1] is mark and self.final_until < call.time == self.last

    def change(self, amount: int, now: float) -> None:
        at = self.see(now)
        self.final_until = max(self.final_until, self.last)
        if self.arrival(is_strict=True) - at > self.period * Fraction(amount, self.amount):
            # Part of it is forgiven. What was reserved before is not given back any more: nobody can tell of which part.
            for _, event in self.events:
                if isinstance(event, Mark):
                    event.is_forgiven = True
        self.events.append((at, amount))
        self.amount = amount
        self._change_events()

    def recount(self) -> None:
        """Replay once and for all what nobody can change any more."""
        settled = 0
        for _, event in self.events:
            if isinstance(event, Mark) and event.is_open:
                break
            settled += 1
        most, _ = self._replay(self.events[:settled], is_strict=True)
        self.began_at, self.began_with = self._replay(self.events[:settled])
        self.began_at_most = most
        self.events = self.events[settled:]


@cache
def _interval(period: int, amount: int) -> int | Fraction:
    whole, rest = divmod(period, amount)
    return Fraction(period, amount) if rest else whole


class SlowModel:
    """All calls, and all limits by subject, unit and window. It is the engine's usage history as well."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.limits: dict[Key, SlowLimit] = {}
        self._dropped: dict[Key, SlowLimit] = {}

    def charged_since(self, subject: Subject, unit: Unit, since: float) -> int:
        return sum(amount for _, amount in self.charges_since(subject, unit, since))

    def charges_since(self, subject: Subject, unit: Unit, since: float) -> Charges:
        index = UNITS.index(unit)
        return sorted(
            (time if index == 0 else end, amount)
            for time, end, amount in self.history_of(subject, unit)
            if time >= since
        )

    def history_of(self, subject: Subject, unit: Unit) -> History:
        index = UNITS.index(unit)
        return [
            (call.time, call.ended_at, call.charged[index])
            for call in self.calls
            if not call.is_open and call.charged[index] > 0 and subject in call.subjects
        ]

    def load(self, subject: Subject, limits: Iterable[Limit], now: float) -> None:
        """Begin anew with what the calls were charged."""
        for key in [key for key in self.limits if key[0] == subject]:
            del self.limits[key]
        for limit in limits:
            self.limits[subject, limit.unit, limit.window] = self._slow_limit(subject, limit, now, [])

    def change_limits(self, subject: Subject, limits: Iterable[Limit], now: float) -> None:
        """Set limits while calls are under way: the new ones count those in full, and they settle them."""
        known = {key: self.limits.pop(key) for key in list(self.limits) if key[0] == subject}
        for limit in limits:
            key = (subject, limit.unit, limit.window)
            kept = known.pop(key, None) or (self._dropped.get(key) if limit.window is None else None)
            if kept is None:
                kept = self._slow_limit(subject, limit, now, self._under_way(subject))
            elif kept.amount != limit.amount:
                kept.change(limit.amount, now)
            self.limits[key] = kept
        self._dropped.update(known)

    def _under_way(self, subject: Subject) -> list[Call]:
        return [call for call in self.calls if call.is_open and subject in call.subjects]

    def _slow_limit(self, subject: Subject, limit: Limit, now: float, under_way: list[Call]) -> SlowLimit:
        if limit.window is None:
            return SlowConcurrency(limit)
        history = self.history_of(subject, limit.unit)
        slow: SlowLimit
        if isinstance(limit.window, CalendarWindow):
            slow = SlowCalendar(limit, limit.window, [(time, amount) for time, _, amount in history], now)
        else:
            index = UNITS.index(limit.unit)
            history += [(call.time, call.time, call.reserved[index]) for call in under_way]
            slow = SlowRateLimit(limit, limit.window, history, now)
        for call in under_way:
            mark = slow.adopt(call)
            if mark is not None:
                call.marks.append((slow, mark))
        return slow

    def grant(
        self, limits: Iterable[SlowLimit], left: Iterable[int], least: Amounts, most: Amounts
    ) -> Amounts | None:
        """What a call is given: the most of each unit that all its limits have left; None when that is too little."""
        given = list(most)
        for limit, remaining in zip(limits, left, strict=True):
            given[limit.index] = min(given[limit.index], remaining)
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

    def chargeable(self, call: Call, used: Amounts, now: float, *, is_strict: bool = False) -> Amounts:
        """What the call is charged: what it used, as far as every limit has what exceeds its reservation."""
        return self._within(call, used._replace(concurrent=0), now, is_strict=is_strict)

    def extendable(self, call: Call, used: Amounts, now: float, *, is_strict: bool = False) -> Amounts:
        """What the call may hold: at least what it reserved, and what it used, as far as every limit has the rest."""
        wanted = Amounts(*map(max, call.reserved, used))
        return self._within(call, wanted, now, is_strict=is_strict)

    def _within(self, call: Call, wanted: Amounts, now: float, *, is_strict: bool) -> Amounts:
        given = list(wanted)
        for limit, mark in call.marks:
            beyond = given[limit.index] - mark.whole
            if beyond > 0:
                room = limit.room_beyond(mark, now, is_strict=is_strict)
                given[limit.index] = mark.whole + min(beyond, room)
        return Amounts(*given)

    def extend(self, call: Call, held: Amounts, now: float) -> None:
        for limit, mark in call.marks:
            extra = held[limit.index] - call.reserved[limit.index]
            if extra:
                limit.extend(mark, extra, now)
        call.reserved = held

    def settle(self, call: Call, charged: Amounts, now: float) -> None:
        for limit, mark in call.marks:
            limit.settle(mark, call, charged[limit.index], now)
        call.charged = charged
        call.ended_at = max(now, call.time)
        call.is_open = False

    def forget_before(self, instant: float) -> None:
        """Drop the calls that no window can need any more."""
        self.calls = [call for call in self.calls if call.is_open or call.time >= instant]
