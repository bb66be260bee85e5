"""The memory engine: exact limits for one process.

Who runs where. `read_history` blocks and runs in a worker thread. Everything else here, and every method of a meter,
runs on the event loop; none of it awaits, so `admit` is atomic without a lock.

How a meter lives. There is never more than one meter that new calls are held to for a subject, unit and window; calls
under way may hold one beside it whose limit was removed, or that a change made useless. `attach` makes it from what the
usage history holds, and hands out the same one as long as anybody holds it. `evict_idle` lets go of meters that were not
used for a while, but the limiter keeps a weak reference: an exchange still under way holds its meters, so the next
`attach` finds them. Whoever admits a request must therefore keep its `LimitSet` until the request's record is in
the journal (or the request was given back). No request can fall between meter and history, and the hot path does
not pay for it.

What a reload needs. Once the last holder is gone, the requests are in the history only, so the history must be
complete up to that moment before it is read again. `on_forget` is called then: the caller notes the journal's position
(as it does at start, and whenever limits change) and waits until the ingester has passed it before `read_history`;
`MeterLoader` does all that. A snapshot older than `SNAPSHOT_LIFE_S` is refused, because a meter may
have lived, counted and been evicted since; nothing is evicted sooner than that.

How a call that is weighed uses it. `reserve` takes what the call may use at most, from all meters or from none; `settle`
gives back what it did not use. Where it used more than was reserved, the rest is taken as far as it is left in every
limit, and never further: a limit is not exceeded, even if a call then costs its owner less than it used.

When limits change. A window that stays keeps its meter and what is used, whatever the new amount. A window that is new
starts with what the history holds, and with the calls that are under way (`MeterLoader.limits_changed`).
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias
from weakref import KeyedRef

from lingpai.quotas.amounts import NOTHING, ONE, UNITS, Amounts
from lingpai.quotas.grammar import Limit
from lingpai.quotas.history import Held, Snapshot, read_snapshot
from lingpai.quotas.interfaces import Subject, UsageHistory
from lingpai.quotas.limit_set import NO_LIMITS, LimitSet, limit_set
from lingpai.quotas.making import make_meter, name_apart, revive, strictest
from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import Refusal
from lingpai.quotas.thresholds import Thresholds
from lingpai.quotas.under_way import CallUnderWay, hold_to_new

__all__ = [
    "NO_LIMITS",
    "SNAPSHOT_LIFE_S",
    "HistoryNeededError",
    "LimitSet",
    "MemoryLimiter",
    "limit_set",
]

SNAPSHOT_LIFE_S: Final = 60.0

_CONCURRENT: Final = UNITS.index("concurrent")

_Reference: TypeAlias = KeyedRef[Subject, Meter]


class HistoryNeededError(Exception):
    """`attach` has to be told what is used: there is no snapshot, or the one given is too old. Read it (anew)."""


class MemoryLimiter:
    """Counts in this process's memory. See the module for threads and lifetimes.

    `clock` gives Unix seconds. `on_forget` is called when a meter has left memory, wherever its last reference went
    away: garbage collection may do that in any thread, so it must do no more than take a note.
    """

    def __init__(
        self,
        history: UsageHistory,
        clock: Callable[[], float] = time.time,
        *,
        warn_at: Iterable[int] = (),
    ) -> None:
        """`warn_at`: at which percentages of a calendar limit `on_threshold` is called, once per window each."""
        self.on_forget: Callable[[], None] = _nothing
        self._history = history
        self._clock = clock
        self._thresholds = Thresholds(warn_at)
        # Ordered by when they were looked at last; only an OrderedDict gives up its first entry in constant time.
        self._kept: OrderedDict[Subject, tuple[Meter, ...]] = OrderedDict()
        # What is in memory, kept or not: a call under way may hold the meters of limits that nobody has looked at for long.
        self._alive: dict[Subject, tuple[_Reference, ...]] = {}
        self._count = 0
        self._gone: deque[Subject] = deque()

    @property
    def on_threshold(self) -> Callable[[Meter, int, float], None]:
        """Called with a meter, a percentage and the time when so much is used (settled, for what is reserved first).

        That is in the midst of an admission or settlement: it must do no more than take a note.
        """
        return self._thresholds.on_threshold

    @on_threshold.setter
    def on_threshold(self, callback: Callable[[Meter, int, float], None]) -> None:
        self._thresholds.on_threshold = callback

    def read_history(
        self, subject: Subject, limits: tuple[str, ...], under_way: Sequence[Held] = ()
    ) -> Snapshot:
        """What `subject` has used, for `attach`; `under_way` are admitted calls that the history does not have yet.

        Blocks; for a worker thread. Raises ValueError for a bad limit.
        """
        return read_snapshot(self._history, subject, strictest(limits), self._clock(), under_way)

    def attach(
        self,
        subject: Subject,
        limits: tuple[str, ...],
        snapshot: Snapshot | None = None,
        *,
        label: str = "",
        under_way: Iterable[CallUnderWay] = (),
    ) -> tuple[Meter, ...]:
        """The meters that hold `subject` to `limits`; empty when there are none.

        A meter that is alive wins over the snapshot, and takes on the amount given here with what is used kept. A
        meter whose window is no longer among `limits` is dropped. `label` names the subject for people (key `ci`).
        `under_way` are those of the calls that the snapshot was read with which are under way still.

        Raises HistoryNeededError when a meter has to be made and `snapshot` is missing, too old, or lacks its window;
        nothing has changed then. Raises ValueError for a bad limit.
        """
        self._remove_gone()
        now = self._clock()
        wanted = strictest(limits)
        known = {(meter.unit, meter.limit.window): meter for meter in self._living(subject)}
        alive = [known.get((limit.unit, limit.window)) for limit in wanted]
        missing = [limit for limit, meter in zip(wanted, alive, strict=True) if meter is None]
        if any(limit.window is not None for limit in missing):
            _check_snapshot(snapshot, subject, wanted, now)
        label = label or f"{subject[0]} `{subject[1]}`"
        meters = tuple(
            make_meter(limit, subject, snapshot, label=label, now=now, thresholds=self._thresholds)
            if meter is None
            else revive(meter, limit, label=label, now=now)
            for meter, limit in zip(alive, wanted, strict=True)
        )
        name_apart(meters)
        self._begin([new for new, old in zip(meters, alive, strict=True) if old is None], under_way, now)
        self._keep(subject, meters)
        return meters

    def forget_made_since(self, subject: Subject, instant: float) -> None:
        """Let go of the meters of `subject` that were made at `instant` (time.monotonic) or later.

        Calls that hold them settle them still; who comes next gets new ones. Concurrent calls, which no history tells
        of, are counted on.
        """
        living = self._living(subject)
        staying = [meter for meter in living if meter.made_at < instant or meter.limit.window is None]
        if len(staying) < len(living):
            self._refer_to(subject, staying)
            kept = tuple(meter for meter in self._kept.pop(subject, ()) if meter in staying)
            if kept:
                self._kept[subject] = kept

    def admit(self, limits: LimitSet, now: float) -> Refusal | None:
        """Take one request from each meter of `limits`, or from none: None when admitted, else why not.

        For sets that do not weigh. `now` is the present, read for this call, and what the request's usage record will
        carry. When several meters refuse, the refusal is about the one that is free last, so that whoever waits for it
        gets through. With `limits.needs_settling` the call must be settled (or given back) as taken with ``ONE``.
        """
        meters = limits.meters
        for meter in meters:
            if not meter.room(now):
                return Refusal.of(meters, now)
        for meter in meters:
            meter.take(now)
        return None

    def reserve(self, limits: LimitSet, now: float, least: Amounts, most: Amounts) -> Amounts | Refusal:
        """Take from each meter of `limits`, or from none; answers how much was taken of each unit, or why not.

        Of each unit it is `most`, or what is left where that is less, if it is at least `least`; all meters of a unit
        give the same. What is taken must be settled (or given back) with the same `now` and the amounts answered.
        """
        granted, is_less = list(most), False
        for meter in limits.meters:
            left = meter.room_for(now)
            if left < granted[meter.index]:
                if left < least[meter.index]:
                    return Refusal.of(limits.meters, now, least)
                granted[meter.index], is_less = left, True
        for meter in limits.meters:
            meter.reserve(now, granted[meter.index])
        return Amounts(*granted) if is_less else most

    def extend(self, limits: LimitSet, admitted_at: float, reserved: Amounts, used: Amounts) -> Amounts:
        """Reserve for a call that used more than was reserved for it what every limit still has left of the rest.

        Answers what is reserved now, which is what the call must be settled (or given back) with. It is at least
        `reserved`, and of each unit at most `used` where that is more: what of it is `used` may be recorded as charged.
        """
        now = self._clock()
        granted = [max(pair) for pair in zip(reserved, used, strict=True)]
        for meter in limits.meters:
            index = meter.index
            if granted[index] > reserved[index]:
                extra = meter.extra_room(admitted_at, reserved[index], now)
                granted[index] = min(granted[index], reserved[index] + extra)
        for meter in limits.meters:
            index = meter.index
            meter.extend(admitted_at, reserved[index], granted[index] - reserved[index], now)
        return Amounts(*granted)

    def settle(self, limits: LimitSet, admitted_at: float, reserved: Amounts, used: Amounts) -> Amounts:
        """End the call that was admitted at `admitted_at` with `reserved`, of which `used` was used.

        Gives back what was not used, and the call's place among the concurrent ones. Where more was used than reserved,
        takes the rest as far as every limit on that unit has it left. Answers what was charged: `used`, or less where
        that was not enough. A reservation belongs to the window of `admitted_at`, also when that has ended.
        """
        now = self._clock()
        charged = list(used)
        charged[_CONCURRENT] = 0
        for meter in limits.meters:
            index = meter.index
            if charged[index] > reserved[index]:
                extra = meter.extra_room(admitted_at, reserved[index], now)
                charged[index] = min(charged[index], reserved[index] + extra)
        for meter in limits.meters:
            index = meter.index
            meter.settle(admitted_at, reserved[index], charged[index], now)
        return Amounts(*charged)

    def give_back(self, limits: LimitSet, admitted_at: float, reserved: Amounts = ONE) -> None:
        """Release what the call that was admitted at `admitted_at` took, which is not charged at all.

        Requests of windows that have ended since, and rates that have refilled since, are left as they are.
        """
        self.settle(limits, admitted_at, reserved, NOTHING)

    def evict_idle(self, now: float, idle_s: float, *, most: int = 2000) -> int:
        """Let go of subjects without an admitted request for `idle_s` seconds (at least SNAPSHOT_LIFE_S).

        Looks at `most` subjects and goes on from there next time, so that a call takes a millisecond or two; for a
        job that runs every few seconds. Answers how many it let go of.
        """
        if idle_s < SNAPSHOT_LIFE_S:
            raise ValueError(f"idle_s must be at least {SNAPSHOT_LIFE_S:g} s, was {idle_s:g}")
        self._remove_gone()
        evicted = 0
        for _ in range(min(most, len(self._kept))):
            subject, meters = self._kept.popitem(last=False)
            if all(now - meter.touched >= idle_s for meter in meters):
                evicted += 1
            else:
                self._kept[subject] = meters  # at the end: looked at, and the next call begins behind it
        return evicted

    def __len__(self) -> int:
        """How many meters are alive."""
        self._remove_gone()
        return self._count

    def _begin(self, meters: Sequence[Meter], under_way: Iterable[CallUnderWay], now: float) -> None:
        made_at = time.monotonic()
        hold_to_new(under_way, meters)
        for meter in meters:
            meter.made_at = made_at
            meter.warn_from_the_start(now)  # only now is it known what of it is reserved

    def _living(self, subject: Subject) -> list[Meter]:
        meters = [reference() for reference in self._alive.get(subject, ())]
        return [meter for meter in meters if meter is not None]

    def _keep(self, subject: Subject, meters: tuple[Meter, ...]) -> None:
        """Go on with `meters`, and forget those whose limit was removed.

        Should it be set again, the history tells more than such a meter. But no history tells of calls under way: a
        meter of these is found again while it counts any.
        """
        living = self._living(subject)
        if any(meter not in meters and meter.limit.window is not None for meter in living):
            self.on_forget()
        self._refer_to(
            subject, [*meters, *(each for each in living if each not in meters and each.limit.window is None)]
        )
        self._kept.pop(subject, None)
        if meters:
            self._kept[subject] = meters

    def _refer_to(self, subject: Subject, meters: Sequence[Meter]) -> None:
        before = self._alive.pop(subject, ())
        known = {id(meter): reference for reference in before if (meter := reference()) is not None}
        after = tuple(known.get(id(meter)) or KeyedRef(meter, self._note_gone, subject) for meter in meters)
        self._count += len(after) - len(before)
        if after:
            self._alive[subject] = after

    def _note_gone(self, reference: _Reference) -> None:
        """The last holder of a meter is gone; in any thread."""
        self._gone.append(reference.key)
        self.on_forget()

    def _remove_gone(self) -> None:
        while self._gone:
            subject = self._gone.popleft()
            self._refer_to(subject, self._living(subject))


def _check_snapshot(snapshot: Snapshot | None, subject: Subject, wanted: list[Limit], now: float) -> None:
    if snapshot is None or not 0 <= now - snapshot.read_at < SNAPSHOT_LIFE_S:
        raise HistoryNeededError
    if snapshot.subject != subject or not all(map(snapshot.covers, wanted)):
        raise HistoryNeededError


def _nothing() -> None:
    """What happens on forgetting until somebody asks to be told."""
