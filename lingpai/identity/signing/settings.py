"""Settings of signed requests."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSettings:
    """Section `[signing]`."""

    max_nonces: Count = field(
        default=1_000_000,
        metadata={"help": "Most nonces of signed requests remembered at a time; each takes about 100 bytes."},
    )
    max_nonces_per_user: Count = field(
        default=250_000,
        metadata={"help": "Most nonces remembered at a time of all signing keys of one user together."},
    )
