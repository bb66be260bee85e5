"""Where calls wait for limits that allow it (`wait 5s`), instead of being refused.

A call waits in the line of one limit: of those that refused it the one that has room last. In a line keys take turns,
and within a key the first comes first, so no key can keep another one from its turn by sending more. A line is looked at
when something is given back (`on_room`), and when the limit has room by itself again; a call that meets another limit
then moves to that one's line.

Calls weigh differently, and one that asks for much must not stop the others: a call that fits may pass a blocked one of
another key, whether it waits or comes new. A call that has been passed so often, or has waited so long, that it might
never have its turn holds the line: nobody passes it any more. Within a key nobody ever passes.

While a call waits its body is kept and its connection watched; nothing is taken from any limit. How many may wait is
bounded, for all and for each key. A call whose time is up is refused as it would have been at first.
"""

import asyncio
import time
from collections import deque
from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

from lingpai.gateway.bodies import key_of
from lingpai.quotas.amounts import ONE, Amounts
from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import Refusal

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

_SHORTEST_S: Final = 0.001
_LONGEST_S: Final = 1.0
"""A line is looked at at least this often, whatever its limit says: a key may be revoked, a clock set."""
MOST_OVERTAKEN: Final = 16
PATIENCE_S: Final = 5.0
"""How often a call may be passed, and how long it waits, before it holds the line."""
MOST_LOOKED_AT: Final = 32
"""How many keys are looked at in one line at a time: each look costs all calls a little."""


class Place:
    """A call's place in the queue."""

    __slots__ = ("deadline", "entered_at", "exchange", "key", "line", "overtaken", "refusal", "timer")

    def __init__(self, exchange: "Exchange", key: str, refusal: Refusal, entered_at: float) -> None:
        """`entered_at` is loop time."""
        self.exchange = exchange
        self.key = key
        self.refusal = refusal
        self.entered_at = entered_at
        self.deadline = entered_at + refusal.wait_s
        self.overtaken = 0
        self.line: Line | None = None
        self.timer: asyncio.TimerHandle | None = None

    def holds_line(self, now: float) -> bool:
        """Whether nobody may pass any more. `now` is loop time."""
        return self.overtaken >= MOST_OVERTAKEN or now - self.entered_at >= PATIENCE_S


class Line:
    """Those who wait for one limit: by key, in the order in which keys have their turn."""

    __slots__ = ("alarm", "is_due", "is_even", "meter", "waiting")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.waiting: dict[str, deque[Place]] = {}  # in the order of turns
        self.alarm: asyncio.TimerHandle | None = None
        self.is_due = False
        self.is_even = meter.unit in ("requests", "concurrent")
        """Whether all calls ask for as much of this limit: where one does not fit, no other does."""

    def first(self) -> Place:
        """Whose turn it is."""
        return next(iter(self.waiting.values()))[0]

    def firsts(self) -> list[Place]:
        """The first of each key, in the order of turns; of many keys those whose turn comes soon."""
        return [places[0] for places in islice(self.waiting.values(), MOST_LOOKED_AT)]

    def passed_by(self, key: str, now: float, loop_now: float) -> list[Place] | None:
        """Those whom a newcomer of `key` would pass; None when it may not: it is the turn of somebody here."""
        if self.is_due or key in self.waiting:
            return None
        firsts, left = self.firsts(), self.meter.room_for(now)
        if any(place.refusal.wanted <= left or place.holds_line(loop_now) for place in firsts):
            return None
        return firsts

    def free_at(self, now: float, loop_now: float) -> float:
        """When there may be room for somebody who may take it."""
        firsts = self.firsts()
        earliest = firsts[0].refusal.free_at
        for before, place in pairwise(firsts):
            if self.is_even or before.holds_line(loop_now):
                break
            earliest = min(earliest, self.meter.free_at(now, place.refusal.wanted))
        return earliest

    def join(self, place: Place) -> None:
        """Stand in line: behind those of the same key who came earlier, wherever they waited until now."""
        places = self.waiting.setdefault(place.key, deque())
        at = len(places)
        while at and places[at - 1].entered_at > place.entered_at:
            at -= 1
        places.insert(at, place)
        place.line = self

    def leave(self, place: Place, *, had_turn: bool) -> None:
        """Go out of the line. Who had a turn goes to the end with all of the key that still wait."""
        places = self.waiting[place.key]
        places.remove(place)
        place.line = None
        if not places:
            del self.waiting[place.key]
        elif had_turn:
            self.waiting[place.key] = self.waiting.pop(place.key)


class Queue:
    """All lines of one server. Belongs to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, most: int, most_per_key: int) -> None:
        self.lines: dict[Meter, Line] = {}
        self.size = 0
        """How many calls wait."""
        self._loop = loop
        self._most = most
        self._most_per_key = most_per_key
        self._by_key: dict[str, int] = {}

    def refusal_of_newcomer(self, exchange: "Exchange") -> Refusal | None:
        """Why a call that was just made, and would fit, cannot be admitted yet: it is the turn of others.

        None where that is not so; then the limits themselves are to be asked.
        """
        key, now, loop_now = key_of(exchange), time.time(), self._loop.time()
        least = ONE if exchange.weight is None else exchange.weight.least
        passed: list[Place] = []
        for meter in exchange.limits.meters:  # type: ignore[union-attr]  # limits are known before a call is admitted
            line = self.lines.get(meter)
            if line is None or meter.room_for(now) < least[meter.index]:
                continue  # the limit refuses by itself, and knows best why
            blocked = line.passed_by(key, now, loop_now)
            if blocked is None:
                return _behind(line, least, now)
            passed += blocked
        for place in passed:
            place.overtaken += 1
        return None

    def enter(self, exchange: "Exchange", refusal: Refusal) -> bool:
        """Let a refused call wait; False when it may not, when it would be in vain, or when too many wait."""
        key, now = key_of(exchange), self._loop.time()
        if self.is_full_for(exchange):
            return False
        # Who was in the queue before (something had changed, and all steps were taken again) has waited already.
        place = Place(exchange, key, refusal, exchange.queued_since or now)
        if not _is_worth_waiting(refusal, place.deadline - now):
            return False
        exchange.place = place
        exchange.queued_since = place.entered_at
        place.timer = self._loop.call_later(place.deadline - now, self._time_is_up, place)
        self.size += 1
        self._by_key[key] = self._by_key.get(key, 0) + 1
        self._join(place)
        return True

    def is_full_for(self, exchange: "Exchange") -> bool:
        """Whether as many calls wait as may: of all callers, or of this one."""
        return self.size >= self._most or self._by_key.get(key_of(exchange), 0) >= self._most_per_key

    def leave(self, exchange: "Exchange") -> None:
        """A waiting call ends otherwise: the caller left, or the server stops."""
        if exchange.place is not None:
            self._take_out(exchange.place, had_turn=False)

    # -- lines

    def _join(self, place: Place) -> None:
        meter = place.refusal.meter
        line = self.lines.get(meter)
        if line is None:
            line = self.lines[meter] = Line(meter)
            meter.on_room = lambda: self._look_soon(line)
        line.join(place)
        self._set_alarm(line)

    def _take_out(self, place: Place, *, had_turn: bool) -> None:
        """The end of a place: what is counted is counted down, and nothing will ring any more."""
        self._go_out(place, had_turn=had_turn)
        if place.timer is not None:
            place.timer.cancel()
        self.size -= 1
        left = self._by_key[place.key] - 1
        if left:
            self._by_key[place.key] = left
        else:
            del self._by_key[place.key]
        exchange = place.exchange
        exchange.place = None
        exchange.queued_ms = (self._loop.time() - place.entered_at) * 1000

    def _go_out(self, place: Place, *, had_turn: bool) -> None:
        line = place.line
        if line is None:
            return
        line.leave(place, had_turn=had_turn)
        if not line.waiting:
            line.meter.on_room = None
            del self.lines[line.meter]
            if line.alarm is not None:
                line.alarm.cancel()
        elif not had_turn:
            self._look_soon(line)  # the next in line may ask for less

    def _set_alarm(self, line: Line) -> None:
        """Look again when the limit has room by itself."""
        if line.alarm is not None:
            line.alarm.cancel()
        now = time.time()
        wait = line.free_at(now, self._loop.time()) - now
        line.alarm = self._loop.call_later(min(max(wait, _SHORTEST_S), _LONGEST_S), self._look, line)

    def _look_soon(self, line: Line) -> None:
        """Something was given back, maybe in the midst of a settlement: look when that is over."""
        if not line.is_due:
            line.is_due = True
            self._loop.call_soon(self._look, line)

    def _look(self, line: Line) -> None:
        """Let in whoever can be let in, turn by turn."""
        line.is_due = False
        while line.waiting:
            if not self._let_one_on(line):
                self._set_alarm(line)
                return

    def _let_one_on(self, line: Line) -> bool:
        """Ask the limits for those whose turn it is; whether one has left the line."""
        now, blocked = self._loop.time(), list[Place]()
        for place in line.firsts():
            # The first is always asked: whether waiting is still worth it may have changed.
            if (not blocked or place.refusal.wanted <= line.meter.room_for(time.time())) and self._try(place):
                if place.exchange.is_admitted:
                    for each in blocked:
                        each.overtaken += 1
                return True
            blocked.append(place)
            if line.is_even or place.holds_line(now):
                return False
        return False

    def _try(self, place: Place) -> bool:
        """Take a call out of its line if anything can be done about it: let it in, turn it away, or move it on."""
        line, exchange = place.line, place.exchange
        if not exchange.may_still_enter():
            self._take_out(place, had_turn=True)
            exchange.start_anew()
            return True
        refusal = exchange.ask_limits_again()
        if refusal is None:
            self._take_out(place, had_turn=True)
            exchange.admitted()
            return True
        place.refusal = refusal
        if not _is_worth_waiting(refusal, place.deadline - self._loop.time()):
            self._turn_away(place)
        elif line is not None and refusal.meter is line.meter:
            return False
        else:
            self._go_out(place, had_turn=True)
            self._join(place)
        return True

    # -- ends

    def _time_is_up(self, place: Place) -> None:
        """Who was behind others all the time is told what the limits say to their own call."""
        place.timer = None
        now, exchange = time.time(), place.exchange
        least = ONE if exchange.weight is None else exchange.weight.least
        meters = exchange.limits.meters  # type: ignore[union-attr]  # who waits has limits
        short = [meter for meter in meters if meter.room_for(now) < least[meter.index]]
        if short:
            place.refusal = Refusal.of(short, now, least)
        self._turn_away(place)

    def _turn_away(self, place: Place) -> None:
        self._take_out(place, had_turn=False)
        place.exchange.turned_away(place.refusal)


def _behind(line: Line, least: Amounts, now: float) -> Refusal:
    """The refusal of a call that would fit, but for those who wait for their turn; in its own figures."""
    meter, first = line.meter, line.first().refusal
    used = meter.used_at(now)
    return replace(
        first,
        used=used,
        reserved=min(meter.reserved, used),
        wanted=least[meter.index],
        free_at=max(first.free_at, now),
        retry_after=max(first.free_at - now, 0.0),
        refusing=(meter,),
        wait_s=meter.limit.wait_s,
    )


def _is_worth_waiting(refusal: Refusal, left: float) -> bool:
    """Whether a call may wait at all, and there can be room in the `left` seconds that it has."""
    if refusal.wait_s <= 0 or left <= 0:
        return False
    # When calls under way end, nobody knows.
    is_open = refusal.is_held or refusal.meter.limit.window is None
    return is_open or refusal.free_at - time.time() <= left
