"""Settings of the data plane."""

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

Bytes = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]
FEW_MESSAGES: Final = 100
"""So many messages are always allowed, so that the usual call need not be measured."""
MaxTokens = Annotated[int, Meta(ge=1, le=10_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Section `[gateway]`."""

    max_body_bytes: Bytes = field(
        default=32 * 1024 * 1024, metadata={"help": "Largest request body accepted, in bytes."}
    )
    max_held_bytes: Bytes = field(
        default=1024 * 1024 * 1024,
        metadata={
            "help": "Most bytes of requests and answers held at a time, of all calls under way together."
        },
    )
    max_held_bytes_per_key: Bytes = field(
        default=512 * 1024 * 1024,
        metadata={"help": "Most bytes of requests and answers held at a time, of the calls of one key."},
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
    fetch_media: bool = field(
        default=True,
        metadata={
            "help": "Let workers fetch pictures and sound that callers name by address, from the public internet only."
        },
    )
    strict_params: bool = field(
        default=False,
        metadata={
            "help": "Refuse parameters that a local model ignores (400), instead of naming them in a header."
        },
    )
    default_max_tokens: MaxTokens = field(
        default=4096,
        metadata={
            "help": "Longest answer, in tokens, of a call that names no length and has token or money limits."
        },
    )
    max_choices: Annotated[int, Meta(ge=1, le=1024)] = field(
        default=16, metadata={"help": "Most answers that one call may ask for (`n`)."}
    )
    max_messages: Annotated[int, Meta(ge=FEW_MESSAGES)] = field(
        default=10_000, metadata={"help": "Most messages that one chat call may have; at least 100."}
    )
    max_inputs: Annotated[int, Meta(ge=1)] = field(
        default=2048,
        metadata={
            "help": "Most inputs that one call of a local model may have: texts to embed, documents to rank, files of a batch."
        },
    )
    max_waiting: Annotated[int, Meta(ge=0)] = field(
        default=1000,
        metadata={"help": "Most calls that may wait for limits with `wait`, all together."},
    )
    max_waiting_per_key: Annotated[int, Meta(ge=0)] = field(
        default=100, metadata={"help": "Most calls of one key that may wait for limits with `wait`."}
    )
    cors_origins: tuple[str, ...] = field(
        default=("*",),
        metadata={
            "help": "Origins whose pages may call models from a browser; `*` is any. Keys travel in headers, never in cookies."
        },
    )
