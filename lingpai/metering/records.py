"""The usage record: what one exchange used, how it was counted, how it ended."""

from typing import Annotated, Final, Literal

import msgspec

BUCKET_SECONDS: Final = 15 * 60
"""Length of a roll-up bucket. Every zone's offset is a multiple of it, so that any zone's days and hours add up."""

MAX_COUNT: Final = 10**12
MAX_SECONDS: Final = 1e12

# The ingester checks these when it decodes, so that no record can violate a constraint or overflow a sum in the
# database. Whoever makes a record bounds what comes from outside (token counts of an upstream) first.
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]

Counted = Literal["reported", "estimated", "none"]
EndReason = Literal["complete", "client_gone", "upstream_error", "timeout", "refused", "stopped"]


class UsageRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One exchange. The order of the fields is the format of the journal: new ones go to the end, with a default.

    `model` is the id of a known model, or empty when the caller named none that exists (names made up by callers
    would fill the roll-ups). `started_at` is the time the limits were asked at. `counted` says where the token
    counts come from. `charged` is the number of requests taken from the quotas and not given back.
    """

    request_id: str
    key_id: str | None
    user_id: str
    model: str
    backend: str
    task: str
    endpoint: str
    started_at: Seconds
    first_byte_ms: Milliseconds | None
    duration_ms: Milliseconds
    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count
    reasoning_tokens: Count
    counted: Counted
    status: Count
    end_reason: EndReason
    charged: Count
    retries: Count
    client_address: str


def bucket_start(time: float) -> int:
    """The start of the roll-up bucket that `time` (unix seconds) falls into."""
    seconds = int(time)
    return seconds - seconds % BUCKET_SECONDS
