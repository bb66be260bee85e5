"""A call that a limit turns away: what the caller is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final, Literal, TypeAlias

from lingpai.quotas.meter import Meter
from lingpai.quotas.windows import CalendarWindow, Duration, time_zone

RefusalCode: TypeAlias = Literal["rate_limit_exceeded", "insufficient_quota"]

# OpenAI's and Anthropic's SDKs ignore a longer `retry-after` and try again at once, unless told not to (wire.md W10).
_LONGEST_OBEYED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted.

    `free_at` is the instant (Unix seconds) from which on the meter has room; `retry_after` the seconds until then,
    counted from the refusal: whoever waits exactly that long finds room.
    """

    code: RefusalCode
    meter: Meter
    used: int
    free_at: float
    retry_after: float

    @classmethod
    def of(cls, meters: Sequence[Meter], now: float) -> "Refusal":
        """The refusal by the one of `meters` that has no room at `now` and has it again last."""
        meter = max(meters, key=lambda meter: meter.free_at(now))
        free_at = meter.free_at(now)
        return cls(_code(meter), meter, meter.used_at(now), free_at, free_at - now)

    @property
    def message(self) -> str:
        """For people: the limit, what is used, when it resets, and what to do."""
        meter = self.meter
        opening = (
            f"The limit of {meter.limit.words} for {meter.label} is used up ({self.used} of {meter.amount})."
        )
        return f"{opening} {_reset_sentence(self)} {_advice(self.code)}"

    def headers(self, now: float) -> bytes:
        """The header lines that a refusal has beside `rate_limit_headers`: when to retry, and whether at all."""
        wait = max(self.free_at - now, 0.0)
        lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (ceil(wait), ceil(wait * 1000))
        if self.code == "insufficient_quota" or wait > _LONGEST_OBEYED_S:
            lines += b"x-should-retry: false\r\n"
        return lines


def _code(meter: Meter) -> RefusalCode:
    window = meter.limit.window
    if isinstance(window, Duration) or window.unit == "minute":
        return "rate_limit_exceeded"
    return "insufficient_quota"


def _reset_sentence(refusal: Refusal) -> str:
    window, wait = refusal.meter.limit.window, about(refusal.retry_after)
    if isinstance(window, CalendarWindow):
        return f"It resets at {local_time(refusal.free_at, window.zone)}, in {wait}."
    return f"It refills by {_refill(refusal.meter.amount, window.seconds)}; there is room again in {wait}."


def _refill(amount: int, seconds: int) -> str:
    if amount > seconds:
        return f"{amount / seconds:.4g} requests per second"
    interval = seconds / amount
    every = about(interval) if interval >= 90 else _counted(float(f"{interval:.3g}"), "second")
    return f"1 request every {every}"


def _advice(code: RefusalCode) -> str:
    if code == "insufficient_quota":
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
