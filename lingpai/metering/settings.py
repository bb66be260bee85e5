"""What an operator can set about usage records: the section ``[metering]``."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta


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
