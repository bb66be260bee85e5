"""What an operator can set about usage records: the section ``[metering]``."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

LEAST_RETENTION_DAYS: Final = 62
"""Two months, so that whatever a monthly limit may ask for is there call by call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringSettings:
    """How usage records are kept."""

    fsync: Literal["never", "interval", "always"] = field(
        default="interval",
        metadata={
            "help": "When the usage journal is forced to the disk: `never`, once a second (`interval`), or before "
            "each answer (`always`). A killed process loses nothing either way; a power failure may."
        },
    )
    segment_bytes: Annotated[int, Meta(ge=4096)] = field(
        default=64 * 1024 * 1024,
        metadata={"help": "Size at which the usage journal starts a new file; loaded files are deleted."},
    )
    usage_wait_s: Annotated[float, Meta(gt=0)] = field(
        default=10.0,
        metadata={
            "help": "How long a usage question waits until everything answered so far is in the database."
        },
    )
    retention_days: Annotated[int, Meta(ge=0)] = field(
        default=400,
        metadata={
            "help": "Days after which single usage records are deleted, at least 62; 0 keeps them for ever. The sums that "
            "reports and limits are made of stay."
        },
    )

    def __post_init__(self) -> None:
        if self.retention_days != 0 and self.retention_days < LEAST_RETENTION_DAYS:
            raise ValueError(
                f"`metering.retention_days` is at least {LEAST_RETENTION_DAYS}, or 0 to keep records for ever."
            )
