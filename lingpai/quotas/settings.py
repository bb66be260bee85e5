"""The section `[limits]` of the settings."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """Which limits apply when none are given, and how long unused counters stay in memory."""

    default: tuple[str, ...] = field(
        default=("2000/day@Asia/Shanghai",),
        metadata={"help": "Limits of a new user, shared by the user's keys, when none are given."},
    )
    evict_after_s: Annotated[float, Meta(ge=60)] = field(
        default=3600.0,
        metadata={
            "help": "Seconds after which the counters of an unused key or user leave memory; at least 60."
        },
    )
    warn_at: tuple[Annotated[int, Meta(ge=1, le=100)], ...] = field(
        default=(80, 100),
        metadata={
            "help": "Percentages of a calendar limit at whose use there is a warning, once per window."
        },
    )
