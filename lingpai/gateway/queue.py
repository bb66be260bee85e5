"""Where calls wait for limits that allow it (`wait 5s`), instead of being refused.

A call waits in the line of one limit: of those that refused it the one that has room last. In a line keys take turns,
and within a key the first comes first, so no key can keep another one from its turn by sending more. Whoever comes new
goes behind those who wait for the same limit already. A line is looked at when something is given back (`on_room`), and
when the limit has room by itself again; a call that meets another limit then moves to that one's line.

While a call waits its body is kept and its connection watched; nothing is taken from any limit. How many may wait is
bounded, for all and for each key. A call whose time is up is refused as it would have been at first.
"""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import Refusal

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

_SHORTEST_S: Final = 0.001
_LONGEST_S: Final = 1.0
"""A line is looked at at least this often, whatever its limit says: a key may be revoked, a clock set."""


class Place:
    """A call's place in the queue."""

    __slots__ = ("deadline", "entered_at", "exchange", "key", "line", "refusal", "timer")

    def __init__(self, exchange: "Exchange", key: str, refusal: Refusal, entered_at: float) -> None:
        """`entered_at` is loop time."""
        self.exchange = exchange
        self.key = key
        self.refusal = refusal
        self.entered_at = entered_at
        self.deadline = entered_at + refusal.wait_s
        self.line: Line | None = None
        self.timer: asyncio.TimerHandle | None = None


class Line:
    """Those who wait for one limit: by key, in the order in which keys have their turn."""

    __slots__ = ("alarm", "is_due", "meter", "waiting")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.waiting: dict[str, deque[Place]] = {}  # in the order of turns
        self.alarm: asyncio.TimerHandle | None = None
        self.is_due = False

    def first(self) -> Place:
        """Whose turn it is."""
        return next(iter(self.waiting.values()))[0]

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
        """Why a call that was just made cannot be admitted yet: others wait for one of its limits already."""
        for meter in exchange.limits.meters:  # type: ignore[union-attr]  # limits are known before a call is admitted
            line = self.lines.get(meter)
            if line is not None:
                return line.first().refusal
        return None

    def enter(self, exchange: "Exchange", refusal: Refusal) -> bool:
        """Let a refused call wait; False when it may not, when it would be in vain, or when too many wait."""
        key, now = _key(exchange), self._loop.time()
        if self.size >= self._most or self._by_key.get(key, 0) >= self._most_per_key:
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
        wait = line.first().refusal.free_at - time.time()
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
            place = line.first()
            if not place.exchange.may_still_enter():
                self._take_out(place, had_turn=True)
                place.exchange.start_anew()
                continue
            refusal = place.exchange.ask_limits_again()
            if refusal is None:
                self._take_out(place, had_turn=True)
                place.exchange.admitted()
                continue
            place.refusal = refusal
            if not _is_worth_waiting(refusal, place.deadline - self._loop.time()):
                self._turn_away(place)
            elif refusal.meter is line.meter:
                self._set_alarm(line)
                return
            else:
                self._go_out(place, had_turn=True)
                self._join(place)

    # -- ends

    def _time_is_up(self, place: Place) -> None:
        place.timer = None
        self._turn_away(place)

    def _turn_away(self, place: Place) -> None:
        self._take_out(place, had_turn=False)
        place.exchange.turned_away(place.refusal)


def _is_worth_waiting(refusal: Refusal, left: float) -> bool:
    """Whether a call may wait at all, and there can be room in the `left` seconds that it has."""
    if refusal.wait_s <= 0 or left <= 0:
        return False
    # When calls under way end, nobody knows.
    is_open = refusal.is_held or refusal.meter.limit.window is None
    return is_open or refusal.free_at - time.time() <= left


def _key(exchange: "Exchange") -> str:
    """Whose turn it is: a key's, a client's, or of callers without either their user's."""
    caller = exchange.account.principal
    return caller.key_id or caller.client_id or caller.user_id
