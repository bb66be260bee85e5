"""Drives the limit engine and the slow model side by side, and compares them after each step."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quota_doubles import VirtualClock
from slow_model import Call, SlowCalendar, SlowLimit, SlowModel, SlowRateLimit

from lingpai.quotas.amounts import NOTHING, ONE, Amounts
from lingpai.quotas.calendar_meter import CalendarMeter
from lingpai.quotas.description import describe
from lingpai.quotas.grammar import parse_limit
from lingpai.quotas.headers import rate_limit_headers
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limiter import LimitSet, MemoryLimiter, limit_set
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import Refusal
from lingpai.quotas.under_way import CallUnderWay

SUBJECTS: tuple[Subject, ...] = (
    ("key", "k1"),
    ("key", "k2"),
    ("client", "c"),
    ("user", "u"),
    ("project", "p"),
    ("model", "m"),
    ("user_model", "u m"),
)
CALLERS: tuple[tuple[Subject, ...], ...] = (
    (("key", "k1"), ("user", "u"), ("project", "p"), ("model", "m"), ("user_model", "u m")),
    (("key", "k1"), ("user", "u"), ("project", "p")),
    (("key", "k2"), ("client", "c"), ("project", "p"), ("model", "m")),
    (("key", "k2"), ("user", "u")),
)
"""Whose limits a call can be held to: each is a caller, with or without a limited model."""

# Small amounts, so that limits are reached all the time; rates with whole and with broken intervals; windows in zones
# that change their clocks on other days, by an hour or half of one, at midnight, and from midnight back to the day before.
CHOICES: tuple[str, ...] = (
    "5/minute",
    "40/hour@Asia/Kathmandu",
    "60/day@America/New_York",
    "200/week@Australia/Lord_Howe",
    "5/10s",
    "7/1m",
    "2000 tokens/minute",
    "9000 tokens/day@Europe/Berlin",
    "50000 tokens/month@Asia/Shanghai",
    "1000 tokens/10s",
    "700 tokens/1m",
    "0.00002 USD/hour@Australia/Lord_Howe",
    "0.0001 USD/day@Atlantic/Azores",
    "0.000007 USD/1m",
    "0.00003 CNY/day@Africa/Cairo",
    "1 concurrent",
    "4 concurrent",
)


@dataclass(slots=True, eq=False)
class OpenCall:
    call: Call
    limits: LimitSet
    reserved: Amounts

    def hold_to(self, meters: Sequence[Meter]) -> None:
        self.limits = limit_set((*self.limits.meters, *meters))


class EngineAgainstModel:
    """Both of them under one clock. Every method raises AssertionError where they differ."""

    def __init__(self, now: float) -> None:
        self.clock = VirtualClock(now)
        self.model = SlowModel()
        self.limiter = MemoryLimiter(self.model, self.clock, warn_at=(80, 100))
        self.texts: dict[Subject, tuple[str, ...]] = dict.fromkeys(SUBJECTS, ())
        self.meters: dict[Subject, tuple[Meter, ...]] = dict.fromkeys(SUBJECTS, ())
        self.open: list[OpenCall] = []
        self.outcomes = {"admitted": 0, "refused": 0}
        self._sets: dict[tuple[Subject, ...], tuple[LimitSet, list[SlowLimit]]] = {}
        self._highest: dict[SlowLimit, int] = {}

    def advance(self, seconds: float) -> None:
        """Let time pass, or set the clock back."""
        self.clock.advance(seconds)
        if seconds < 0:
            self._highest.clear()  # what had flowed back to a rate meanwhile is used again
        for meter, limit in self._pairs():
            meter.room(self.clock.now)
            limit.see(self.clock.now)

    def call(self, caller: tuple[Subject, ...], least: Amounts, most: Amounts) -> None:
        """A call comes; only its limits that weigh ask for more than one request."""
        limits, slow = self._set_of(caller)
        now = self.clock.now
        if limits.weighs:
            answer = self.limiter.reserve(limits, now, least, most)
            wanted = least
        else:
            answer = self.limiter.admit(limits, now) or ONE
            most = wanted = ONE
        left = least_left = [limit.remaining(now) for limit in slow]
        if not all(limit.is_certain for limit in slow):
            least_left = [limit.remaining(now, is_strict=True) for limit in slow]
        highest = self.model.grant(slow, left, wanted, most)
        lowest = highest if least_left is left else self.model.grant(slow, least_left, wanted, most)
        if isinstance(answer, Refusal):
            assert lowest is None
            assert answer.message
            assert answer.meter in answer.refusing
            # All those refuse that lack room for certain, and none that has it for certain.
            for meter, low, high in zip(limits.meters, least_left, left, strict=True):
                assert low < wanted[meter.index] if meter in answer.refusing else high >= wanted[meter.index]
            self.outcomes["refused"] += 1
            return
        assert highest is not None
        assert_between(lowest or wanted, answer, highest)
        call = self.model.admit(slow, caller, now, answer)
        self.open.append(OpenCall(call, limits, answer))
        self.outcomes["admitted"] += 1

    def extend(self, number: int, used: Amounts) -> None:
        """An open call turns out to use that; where it is more than it reserved, it holds that until it is settled."""
        opened = self.open[number % len(self.open)]
        call, now = opened.call, self.clock.now
        highest = self.model.extendable(call, used, now)
        lowest = self.model.extendable(call, used, now, is_strict=True)
        held = self.limiter.extend(opened.limits, call.time, opened.reserved, used)
        assert_between(lowest, held, highest)
        self.model.extend(call, held, now)
        opened.reserved = held

    def look_back(self, caller: tuple[Subject, ...], seconds: float) -> None:
        """Somebody asks with an old reading of the clock, as at the end of a long call; that changes nothing."""
        meters, past = self._set_of(caller)[0].meters, self.clock.now - seconds
        rate_limit_headers(meters, past)
        describe(meters, past)
        for meter in meters:
            meter.free_at(past)

    def settle(self, number: int, used: Amounts) -> None:
        """An open call ends having used that; NOTHING gives all of it back."""
        ended = self.open.pop(number % len(self.open))
        now = self.clock.now
        highest = self.model.chargeable(ended.call, used, now)
        lowest = self.model.chargeable(ended.call, used, now, is_strict=True)
        if used == NOTHING:
            self.limiter.give_back(ended.limits, ended.call.time, ended.reserved)
            charged = NOTHING
        else:
            charged = self.limiter.settle(ended.limits, ended.call.time, ended.reserved, used)
        assert_between(lowest, charged, highest)
        self.model.settle(ended.call, charged, now)

    def change_amount(self, subject: Subject, number: int, factor: float) -> None:
        """The operator changes one of the subject's limits, calls under way or not."""
        if not self.texts[subject]:
            return
        texts = list(self.texts[subject])
        number %= len(texts)
        limit = parse_limit(texts[number])
        amount = max(int(limit.amount * factor), 1)
        texts[number] = str(type(limit)(amount, limit.window, limit.unit))
        for meter in self.meters[subject]:
            slow = self._slow(meter)
            if isinstance(slow, SlowRateLimit):
                slow.last = max(slow.last, self.clock.now)
        if amount != limit.amount:
            self.model.limits[subject, limit.unit, limit.window].change(amount, self.clock.now)
        self.texts[subject] = tuple(texts)
        before = self.meters[subject]
        self.meters[subject] = self.limiter.attach(subject, tuple(texts))
        assert self.meters[subject] == before

    def replace_limits(self, subject: Subject, texts: tuple[str, ...]) -> None:
        """The subject leaves memory and comes back, perhaps with other limits; calls under way keep it there."""
        if self._under_way(subject):
            self._replace_under_way(subject, texts)
            return
        self.meters[subject] = ()
        self._sets.clear()
        self.limiter.evict_idle(self.clock.now + 1e9, 60, most=100)
        assert len(self.limiter) >= sum(map(len, self.meters.values()))
        snapshot = self.limiter.read_history(subject, texts)
        self.meters[subject] = self.limiter.attach(subject, texts, snapshot)
        self.texts[subject] = tuple(str(meter.limit) for meter in self.meters[subject])
        self.model.load(subject, [meter.limit for meter in self.meters[subject]], self.clock.now)
        self._highest.clear()

    def _replace_under_way(self, subject: Subject, texts: tuple[str, ...]) -> None:
        loader = MeterLoader(self.limiter, mark=lambda: 0, reached=_reached, under_way=self._under_way)
        loader.limits_changed(subject)
        for meter in self.meters[subject]:
            slow = self._slow(meter)
            if isinstance(slow, SlowRateLimit) and str(meter.limit.window) in _windows(meter.unit, texts):
                slow.last = max(slow.last, self.clock.now)
        self.meters[subject] = asyncio.run(loader.load(subject, texts, ""))
        self.texts[subject] = tuple(str(meter.limit) for meter in self.meters[subject])
        self.model.change_limits(subject, [meter.limit for meter in self.meters[subject]], self.clock.now)
        self._sets.clear()
        self._highest.clear()

    def _under_way(self, subject: Subject) -> list[CallUnderWay]:
        return [
            CallUnderWay(opened.call.time, opened.reserved, opened.hold_to)
            for opened in self.open
            if subject in opened.call.subjects
        ]

    def check(self, *, recount: bool = True) -> None:
        """Everything agrees, and no limit holds more than it may."""
        now = self.clock.now
        for meter, limit in self._pairs():
            self._check_one(meter, limit, now)
            if recount:
                limit.recount()

    def check_nothing_is_left_over(self) -> None:
        """After all calls are settled no meter has a reservation."""
        for opened in list(self.open):
            self.settle(0, opened.reserved)
        for meter, _ in self._pairs():
            assert meter.reserved == 0
            if meter.unit == "concurrent":
                assert meter.used == 0
        self.check()

    def _check_one(self, meter: Meter, limit: SlowLimit, now: float) -> None:
        used, expected, most = meter.used_at(now), limit.used(now), limit.used(now, is_strict=True)
        assert expected <= used <= most, (
            f"{meter.limit} of {meter.subject}: {used} used, the model has {expected} to {most}"
        )
        assert meter.remaining(now) == max(meter.amount - used, 0)
        # Never over: only a lowered amount can be below what is used, and then nothing more comes in.
        highest = max(self._highest.get(limit, 0), meter.amount)
        assert expected <= highest or limit not in self._highest
        self._highest[limit] = max(meter.amount, used)
        if isinstance(limit, SlowCalendar):
            assert isinstance(meter, CalendarMeter)
            assert (meter.starts_at, meter.ends_at, meter.resets_at(now)) == (
                limit.start,
                limit.end,
                limit.end,
            )
            assert meter.reserved == (limit.reserved if meter.unit != "requests" else 0)

    def _pairs(self) -> Iterable[tuple[Meter, SlowLimit]]:
        return [(meter, self._slow(meter)) for meters in self.meters.values() for meter in meters]

    def _slow(self, meter: Meter) -> SlowLimit:
        return self.model.limits[meter.subject, meter.unit, meter.limit.window]

    def _set_of(self, caller: tuple[Subject, ...]) -> tuple[LimitSet, list[SlowLimit]]:
        if caller not in self._sets:
            meters = [meter for subject in caller for meter in self.meters[subject]]
            self._sets[caller] = limit_set(meters), [self._slow(meter) for meter in meters]
        return self._sets[caller]


def assert_between(lowest: Amounts, amounts: Amounts, highest: Amounts) -> None:
    """Of each unit; where the model knows exactly both bounds are the same."""
    for least, amount, most in zip(lowest, amounts, highest, strict=True):
        assert least <= amount <= most, (lowest, amounts, highest)


def _windows(unit: str, texts: tuple[str, ...]) -> set[str]:
    return {str(limit.window) for limit in map(parse_limit, texts) if limit.unit == unit}


async def _reached(mark: int) -> bool:
    return True
