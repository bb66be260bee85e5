"""What is left of limits, as the API shows it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from typing import TypeAlias

from typing_extensions import TypedDict

from lingpai.quotas.amounts import MONEY, Unit, amount_text
from lingpai.quotas.interfaces import SubjectKind
from lingpai.quotas.meter import Meter

Quantity: TypeAlias = int | str
"""Of money the decimal text (``"0.5"``, never a float), of the rest a whole number."""


class LimitState(TypedDict):
    """One limit of a subject, and how far it is used.

    `used` includes `reserved`. The resets are None for concurrent requests: nobody can know when a call ends.
    """

    subject: SubjectKind
    limit: str
    unit: Unit
    used: Quantity
    reserved: Quantity
    remaining: Quantity
    resets_at: str | None
    resets_in_s: int | None


def describe(meters: Iterable[Meter], now: float) -> list[LimitState]:
    """The state of each meter at `now`. Runs on the event loop, as all that touches meters does.

    Resets are rounded up to whole seconds; for a smooth rate they say when the whole amount is back.
    """
    return [_describe_one(meter, now) for meter in meters]


def _describe_one(meter: Meter, now: float) -> LimitState:
    used = meter.used_at(now)
    resets_at = None if meter.limit.window is None else meter.resets_at(now)
    return LimitState(
        subject=meter.subject[0],
        limit=str(meter.limit),
        unit=meter.unit,
        used=_shown(used, meter.unit),
        reserved=_shown(min(meter.reserved, used), meter.unit),
        remaining=_shown(meter.remaining(now), meter.unit),
        resets_at=None if resets_at is None else _iso(resets_at),
        resets_in_s=None if resets_at is None else ceil(resets_at - now),
    )


def _shown(amount: int, unit: Unit) -> Quantity:
    return amount_text(amount, unit) if unit in MONEY else amount


def _iso(instant: float) -> str:
    return f"{datetime.fromtimestamp(ceil(instant), UTC):%Y-%m-%dT%H:%M:%SZ}"
