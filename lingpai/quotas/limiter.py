"""The memory engine: exact limits for one process.

Who runs where. `read_history` blocks and runs in a worker thread. Everything else here, and every method of a meter,
runs on the event loop; none of it awaits, so `admit` is atomic without a lock.

How a meter lives. There is never more than one meter for a subject and window. `attach` makes it from what the usage
history holds, and hands out the same one as long as anybody holds it. `evict_idle` lets go of meters that were not
used for a while, but the limiter keeps a weak reference: an exchange still under way holds its meters, so the next
`attach` finds them. Whoever admits a request must therefore keep the tuple of meters until the request's record is in
the journal (or the request was given back). No request can fall between meter and history, and the hot path does
not pay for it.

What a reload needs. Once the last holder is gone, the requests are in the history only, so the history must be
complete up to that moment before it is read again. `on_forget` is called then: the caller notes the journal's position
(as it does at start, and whenever limits change) and waits until the ingester has passed it before `read_history`;
`MeterLoader` does all that. A snapshot older than `SNAPSHOT_LIFE_S` is refused, because a meter may
have lived, counted and been evicted since; nothing is evicted sooner than that.

When limits change. A window that stays keeps its meter and what is used, whatever the new amount. A window that is new
starts with what the history holds, and with the calls that are under way (`MeterLoader.limits_changed`).
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias
from weakref import KeyedRef

from lingpai.quotas.calendar_meter import CalendarMeter
from lingpai.quotas.grammar import Limit, parse_limit
from lingpai.quotas.history import Snapshot, read_snapshot
from lingpai.quotas.interfaces import Subject, UsageHistory
from lingpai.quotas.meter import Meter
from lingpai.quotas.rate_meter import RateMeter
from lingpai.quotas.refusal import Refusal
from lingpai.quotas.windows import CalendarWindow, Window

SNAPSHOT_LIFE_S: Final = 60.0

_Key: TypeAlias = tuple[Subject, Window]


class HistoryNeededError(Exception):
    """`attach` has to be told what is used: there is no snapshot, or the one given is too old. Read it (anew)."""


class MemoryLimiter:
    """Counts in this process's memory. See the module for threads and lifetimes.

    `clock` gives Unix seconds. `on_forget` is called when a meter has left memory, wherever its last reference went
    away: garbage collection may do that in any thread, so it must do no more than take a note.
    """

    def __init__(self, history: UsageHistory, clock: Callable[[], float] = time.time) -> None:
        self.on_forget: Callable[[], None] = _nothing
        self._history = history
        self._clock = clock
        # Ordered by when they were looked at last; only an OrderedDict gives up its first entry in constant time.
        self._kept: OrderedDict[Subject, tuple[Meter, ...]] = OrderedDict()
        self._alive: dict[_Key, KeyedRef[_Key, Meter]] = {}
        self._gone: deque[_Key] = deque()

    def read_history(
        self, subject: Subject, limits: tuple[str, ...], under_way: Sequence[float] = ()
    ) -> Snapshot:
        """What `subject` has used, for `attach`; `under_way` are admitted calls that the history does not have yet.

        Blocks; for a worker thread. Raises ValueError for a bad limit.
        """
        return read_snapshot(self._history, subject, strictest(limits), self._clock(), under_way)

    def attach(
        self, subject: Subject, limits: tuple[str, ...], snapshot: Snapshot | None = None, *, label: str = ""
    ) -> tuple[Meter, ...]:
        """The meters that hold `subject` to `limits`; empty when there are none.

        A meter that is alive wins over the snapshot, and takes on the amount given here with what is used kept. A
        meter whose window is no longer among `limits` is dropped. `label` names the subject for people (key `ci`).

        Raises HistoryNeededError when a meter has to be made and `snapshot` is missing, too old, or lacks its window;
        nothing has changed then. Raises ValueError for a bad limit.
        """
        self._remove_gone()
        now = self._clock()
        wanted = strictest(limits)
        alive = [self._find(subject, limit.window) for limit in wanted]
        if None in alive:
            _check_snapshot(snapshot, subject, wanted, now)
        label = label or f"{subject[0]} `{subject[1]}`"
        meters = tuple(
            _make_meter(limit, snapshot, label) if meter is None else _revive(meter, limit, label, now)
            for meter, limit in zip(alive, wanted, strict=True)
        )
        _name_apart(meters)
        self._keep(subject, meters)
        return meters

    def admit(self, meters: Sequence[Meter], now: float) -> Refusal | None:
        """Take one request from each of `meters`, or from none: None when admitted, else why not.

        `now` is the present, read for this call, and what the request's usage record will carry. When several meters refuse, the refusal is about
        the one that is free last, so that whoever waits for it gets through.
        """
        for meter in meters:
            if not meter.room(now):
                return Refusal.of(meters, now)
        for meter in meters:
            meter.take(now)
        return None

    def give_back(self, meters: Sequence[Meter], admitted_at: float) -> None:
        """Release the request that was admitted with ``admit(meters, admitted_at)`` and is not charged.

        Windows that have ended since, and rates that have refilled since, are left as they are.
        """
        for meter in meters:
            meter.give_back(admitted_at)

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
        return len(self._alive)

    def _find(self, subject: Subject, window: Window) -> Meter | None:
        reference = self._alive.get((subject, window))
        return None if reference is None else reference()

    def _keep(self, subject: Subject, meters: tuple[Meter, ...]) -> None:
        for meter in self._kept.pop(subject, ()):
            if meter not in meters:
                del self._alive[subject, meter.limit.window]
                self.on_forget()
        for meter in meters:
            key = (subject, meter.limit.window)
            if self._find(*key) is not meter:
                self._alive[key] = KeyedRef(meter, self._note_gone, key)
        if meters:
            self._kept[subject] = meters

    def _note_gone(self, reference: KeyedRef[_Key, Meter]) -> None:
        """The last holder of a meter is gone; in any thread."""
        self._gone.append(reference.key)
        self.on_forget()

    def _remove_gone(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            if key in self._alive and self._find(*key) is None:
                del self._alive[key]


def strictest(limits: Iterable[str]) -> list[Limit]:
    """The parsed limits, with the smallest amount where a window occurs twice. Raises ValueError for a bad one."""
    by_window: dict[Window, Limit] = {}
    for limit in map(parse_limit, limits):
        known = by_window.setdefault(limit.window, limit)
        if limit.amount < known.amount:
            by_window[limit.window] = limit
    return list(by_window.values())


def _check_snapshot(snapshot: Snapshot | None, subject: Subject, wanted: list[Limit], now: float) -> None:
    if snapshot is None or not 0 <= now - snapshot.read_at < SNAPSHOT_LIFE_S:
        raise HistoryNeededError
    if snapshot.subject != subject or not all(snapshot.covers(limit.window) for limit in wanted):
        raise HistoryNeededError


def _make_meter(limit: Limit, snapshot: Snapshot | None, label: str) -> Meter:
    assert snapshot is not None  # noqa: S101  attach has checked it, for the reader of types
    window, subject, now = limit.window, snapshot.subject, snapshot.read_at
    if isinstance(window, CalendarWindow):
        return CalendarMeter(limit, window, subject, snapshot.counts[window], label=label, now=now)
    return RateMeter(limit, window, subject, snapshot.backlogs[window], label=label, now=now)


def _revive(meter: Meter, limit: Limit, label: str, now: float) -> Meter:
    meter.label = label
    meter.touched = max(meter.touched, now)
    if meter.limit != limit:
        meter.change_limit(limit, now)
    return meter


def _name_apart(meters: tuple[Meter, ...]) -> None:
    """Header names such as ``key-day``; the second day, in another zone, is ``key-day@Europe/Berlin``."""
    names: set[str] = set()
    for meter in meters:
        name = f"{meter.subject[0]}-{meter.limit.window.name}"
        if name in names:
            name = f"{meter.subject[0]}-{meter.limit.window}"
        names.add(name)
        if name != meter.name:
            meter.rename(name)


def _nothing() -> None:
    """What happens on forgetting until somebody asks to be told."""
