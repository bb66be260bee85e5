"""A call that a limit turns away: what the caller is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final, Literal, TypeAlias

from lingpai.quotas.amounts import ONE, Amounts, amount_text, amount_words
from lingpai.quotas.concurrency_meter import LOOK_AGAIN_S
from lingpai.quotas.meter import Meter
from lingpai.quotas.windows import CalendarWindow, Duration, time_zone

RefusalCode: TypeAlias = Literal["rate_limit_exceeded", "insufficient_quota"]

# OpenAI's and Anthropic's SDKs ignore a longer `retry-after` and try again at once, unless told not to (wire.md W10).
_LONGEST_OBEYED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Shortage:
    """One meter that has no room for `wanted`, and when it may have."""

    meter: Meter
    wanted: int
    used: int
    reserved: int
    free_at: float

    @classmethod
    def of(cls, meter: Meter, wanted: int, now: float) -> "_Shortage":
        used = meter.used_at(now)
        shortage = cls(meter, wanted, used, min(meter.reserved, used), meter.free_at(now, wanted))
        if not shortage.is_held:
            return shortage
        return cls(meter, wanted, used, shortage.reserved, min(shortage.free_at, now + LOOK_AGAIN_S))

    @property
    def is_impossible(self) -> bool:
        """More is wanted than the limit ever gives."""
        return self.wanted > self.meter.amount

    @property
    def is_held(self) -> bool:
        """There would be room if the calls under way gave back all that they have reserved."""
        return self.reserved > 0 and self.used - self.reserved + self.wanted <= self.meter.amount


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted.

    `meter` is the limit that has room last; `wanted` is what the call asked of it at least, `used` (which includes
    `reserved`) what it held already. `refusing` are all limits without room. `free_at` is the instant (Unix seconds)
    from which on the meter has room; `retry_after` the seconds until then, counted from the refusal: whoever waits
    exactly that long finds room. Where only calls under way stand in the way, nobody knows when they end: it is a
    second then. `wait_s`: how long the call may queue for room; 0 when one of the refusing limits has no queue.
    """

    code: RefusalCode
    meter: Meter
    used: int
    free_at: float
    retry_after: float
    wanted: int = 1
    reserved: int = 0
    refusing: tuple[Meter, ...] = ()
    wait_s: float = 0
    is_held: bool = False
    is_impossible: bool = False

    @classmethod
    def of(cls, meters: Sequence[Meter], now: float, least: Amounts = ONE) -> "Refusal":
        """The refusal by those of `meters` that have no room for `least` at `now`; there is at least one."""
        shortages = [
            _Shortage.of(meter, least[meter.index], now)
            for meter in meters
            if meter.remaining(now) < least[meter.index]
        ]
        last = max(shortages, key=lambda shortage: (shortage.is_impossible, shortage.free_at))
        is_impossible = last.is_impossible
        return cls(
            code="rate_limit_exceeded" if last.is_held and not is_impossible else _code(last.meter),
            meter=last.meter,
            used=last.used,
            free_at=last.free_at,
            retry_after=last.free_at - now,
            wanted=last.wanted,
            reserved=last.reserved,
            refusing=tuple(shortage.meter for shortage in shortages),
            # Waiting does not help whom the limit can never let through.
            wait_s=0 if is_impossible else min(shortage.meter.limit.wait_s for shortage in shortages),
            is_held=last.is_held,
            is_impossible=is_impossible,
        )

    @property
    def message(self) -> str:
        """For people: the limit, what is used, reserved, left and wanted, when it resets, and what to do."""
        meter = self.meter
        subject = f"The limit of {meter.limit.words} for {meter.label}"
        if meter.limit.window is None:
            return f"{subject} is reached: {_are_under_way(self.used)}. {_CONCURRENCY_ADVICE}"
        if self.is_impossible:
            return f"{subject} can never admit this call: {_needs(self)}. {_IMPOSSIBLE_ADVICE}"
        return f"{subject} {_state(self)}. {_reset_sentence(self)} {_advice(self)}"

    def headers(self, now: float) -> bytes:
        """The header lines that a refusal has beside `rate_limit_headers`: when to retry, and whether at all."""
        wait = max(self.free_at - now, 0.0)
        lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (ceil(wait), ceil(wait * 1000))
        if self.code == "insufficient_quota" or self.is_impossible or wait > _LONGEST_OBEYED_S:
            lines += b"x-should-retry: false\r\n"
        return lines


_CONCURRENCY_ADVICE: Final = (
    "There is room again as soon as one of them ends. Send fewer calls at the same time and retry after the time in "
    "`Retry-After`, or ask the operator for a higher limit."
)
_IMPOSSIBLE_ADVICE: Final = (
    "Lower `max_tokens` or shorten the input, or ask the operator for a higher limit; retrying does not help."
)


def _code(meter: Meter) -> RefusalCode:
    window = meter.limit.window
    if isinstance(window, CalendarWindow) and window.unit != "minute":
        return "insufficient_quota"
    return "rate_limit_exceeded"


def _are_under_way(calls: int) -> str:
    return "1 call is under way" if calls == 1 else f"{calls} calls are under way"


def _needs(refusal: Refusal) -> str:
    return f"it needs at least {amount_words(refusal.wanted, refusal.meter.unit)}"


def _state(refusal: Refusal) -> str:
    """How much is used; for what is weighed also how much is reserved, left and wanted."""
    meter = refusal.meter
    if meter.unit == "requests":
        return f"is used up ({refusal.used} of {meter.amount})"
    settled, reserved, left = (
        amount_text(amount, meter.unit)
        for amount in (
            refusal.used - refusal.reserved,
            refusal.reserved,
            max(meter.amount - refusal.used, 0),
        )
    )
    held = f"{settled} used, {reserved} reserved by calls under way, {left} left"
    return f"has no room for this call: {held}, and {_needs(refusal)}"


def _reset_sentence(refusal: Refusal) -> str:
    window, wait = refusal.meter.limit.window, about(refusal.retry_after)
    if refusal.is_held:
        return "The calls under way give back what they do not use when they end."
    if isinstance(window, Duration):
        return f"It refills by {_refill(refusal.meter, window.seconds)}; there is room again in {wait}."
    zone = window.zone if window is not None else "UTC"
    return f"It resets at {local_time(refusal.free_at, zone)}, in {wait}."


def _refill(meter: Meter, seconds: int) -> str:
    amount = meter.amount
    if meter.unit != "requests":
        return f"{amount_words(amount, meter.unit)} per {Duration(seconds).words}"
    if amount > seconds:
        return f"{amount / seconds:.4g} requests per second"
    interval = seconds / amount
    every = about(interval) if interval >= 90 else _counted(float(f"{interval:.3g}"), "second")
    return f"1 request every {every}"


def _advice(refusal: Refusal) -> str:
    if refusal.is_held:
        return "Retry after the time in `Retry-After`, lower `max_tokens`, or ask the operator for a higher limit."
    if refusal.code == "insufficient_quota":
        return "Wait for the reset, or ask the operator for a higher limit; `GET /v1/key` shows what is left."
    return "Send requests more slowly and retry after the time in `Retry-After`, or ask the operator for a higher limit."


def about(seconds: float) -> str:
    """A duration for people: ``12 seconds``, ``about 3 hours``."""
    if seconds < 90:
        return _counted(max(ceil(seconds), 1), "second")
    if seconds < 90 * 60:
        return "about " + _counted(round(seconds / 60), "minute")
    if seconds < 36 * 3600:
        return "about " + _counted(round(seconds / 3600), "hour")
    return "about " + _counted(round(seconds / 86_400), "day")


def _counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def local_time(instant: float, zone: str) -> str:
    """An instant on a zone's wall clock: ``2026-11-21 00:00 (Asia/Shanghai, UTC+08:00)``."""
    local = datetime.fromtimestamp(instant, time_zone(zone))
    clock = f"{local:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
    offset = local.isoformat(timespec="minutes")[16:]
    return f"{clock} (UTC)" if zone == "UTC" else f"{clock} ({zone}, UTC{offset})"
