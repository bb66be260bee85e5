"""What is left of limits, as the API shows it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from typing import Literal, TypedDict

from lingpai.quotas.meter import Meter


class LimitState(TypedDict):
    """One limit of a key or user, and how far it is used."""

    subject: Literal["key", "user"]
    limit: str
    used: int
    remaining: int
    resets_at: str
    resets_in_s: int


def describe(meters: Iterable[Meter], now: float) -> list[LimitState]:
    """The state of each meter at `now`. Runs on the event loop, as all that touches meters does.

    Resets are rounded up to whole seconds; for a smooth rate they say when the whole amount is back.
    """
    return [_describe_one(meter, now) for meter in meters]


def _describe_one(meter: Meter, now: float) -> LimitState:
    resets_at = meter.resets_at(now)
    return LimitState(
        subject=meter.subject[0],
        limit=str(meter.limit),
        used=meter.used_at(now),
        remaining=meter.remaining(now),
        resets_at=f"{datetime.fromtimestamp(ceil(resets_at), UTC):%Y-%m-%dT%H:%M:%SZ}",
        resets_in_s=ceil(resets_at - now),
    )
