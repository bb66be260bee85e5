"""Settings of the data plane."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

Bytes = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Section `[gateway]`."""

    max_body_bytes: Bytes = field(
        default=32 * 1024 * 1024, metadata={"help": "Largest request body accepted, in bytes."}
    )
    max_answer_bytes: Bytes = field(
        default=256 * 1024 * 1024, metadata={"help": "Largest unary answer taken from a backend, in bytes."}
    )
    connect_timeout_s: Seconds = field(
        default=5.0, metadata={"help": "Seconds to wait for a connection to a backend."}
    )
    first_byte_timeout_s: Seconds = field(
        default=600.0, metadata={"help": "Seconds to wait for the head of a backend's answer."}
    )
    idle_timeout_s: Seconds = field(
        default=300.0, metadata={"help": "Seconds a backend may stay silent in the middle of an answer."}
    )
    strict_params: bool = field(
        default=False,
        metadata={
            "help": "Refuse parameters that a local model ignores (400), instead of naming them in a header."
        },
    )
    cors_origins: tuple[str, ...] = field(
        default=("*",),
        metadata={
            "help": "Origins whose pages may call models from a browser; `*` is any. Keys travel in headers, never in cookies."
        },
    )
