"""The usage record: what one exchange used, how it was counted, how it ended."""

from typing import Annotated, Final, Literal

import msgspec

BUCKET_SECONDS: Final = 15 * 60
"""Length of a roll-up bucket. Every zone's offset is a multiple of it, so that any zone's days and hours add up."""

MAX_COUNT: Final = 10**12
MAX_SECONDS: Final = 1e12
MAX_NANO: Final = 10**18

# The ingester checks these when it decodes, so that no record can violate a constraint or overflow a sum in the
# database. Whoever makes a record bounds what comes from outside (token counts of an upstream) first.
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Nano = Annotated[int, msgspec.Meta(ge=0, le=MAX_NANO)]
"""An amount of money in 10^-9 of its currency."""

Counted = Literal["reported", "counted", "estimated", "none"]
Currency = Literal["", "USD", "CNY"]
EndReason = Literal["complete", "client_gone", "upstream_error", "timeout", "refused", "stopped"]


class UsageRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One exchange. The order of the fields is the format of the journal: new ones go to the end, with a default.

    `model` is the id of a known model, or empty when the caller named none that exists (names made up by callers
    would fill the roll-ups). `started_at` is the time the limits were asked at. `counted` says where the token
    counts come from: the backend, the model's own tokenizer, or an estimate.

    `charged`, `charged_tokens` and `charged_cost` are the requests, tokens and money taken from the limits and kept:
    at most what was used. A call that is charged nothing in requests is charged nothing at all. `cost` and
    `charged_cost` are in 10^-9 of `currency`, which is empty for a model without a price. `queued_ms` is how long the
    call waited for a limit, a part of `duration_ms`.
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
    project_id: str = ""
    client_id: str = ""
    charged_tokens: Count = 0
    cost: Nano = 0
    currency: Currency = ""
    charged_cost: Nano = 0
    queued_ms: Milliseconds = 0.0


def bucket_start(time: float) -> int:
    """The start of the roll-up bucket that `time` (unix seconds) falls into."""
    seconds = int(time)
    return seconds - seconds % BUCKET_SECONDS
