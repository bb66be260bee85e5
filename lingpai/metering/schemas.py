"""The shapes of ``/api/v1/usage`` and ``/api/v1/requests``."""

from pydantic import BaseModel, Field

from lingpai.metering.records import Counted, EndReason


class UsageRowBody(BaseModel):
    """One group's usage. Of the group's fields only those that were asked for by `by` are there."""

    key: str | None = Field(default=None, description="The key's name; null for calls without a key.")
    key_id: str | None = None
    client: str | None = Field(
        default=None, description="The OAuth client's name; null for calls without one."
    )
    client_id: str | None = None
    user: str | None = Field(default=None, description="The user's name.")
    project: str | None = Field(default=None, description="The project's name; null for calls without one.")
    project_id: str | None = None
    model: str | None = None
    task: str | None = None
    day: str | None = Field(default=None, examples=["2026-11-20"])
    hour: str | None = Field(default=None, examples=["2026-11-20T15:00+08:00"])
    requests: int = Field(description="Calls that were admitted.")
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = Field(
        description="What it cost in `currency`; 0 without prices, null when it cost something in two currencies."
    )
    errors: int = Field(description="Of `requests`, those that ended in an error or a time-out.")
    refused: int = Field(description="Calls turned away by a limit or a permission; not in `requests`.")
    currency: str | None = Field(description="Of `cost`; null when there is none, or more than one.")
    costs: dict[str, str] = Field(
        description="The exact cost for each currency.", examples=[{"USD": "0.123"}, {}]
    )
    cached_tokens: int = Field(description="Of `prompt_tokens`, those read from the backend's cache.")
    reasoning_tokens: int = Field(description="Of `completion_tokens`, those of the model's thinking.")
    charged: int = Field(description="Requests taken from the limits and kept.")
    charged_tokens: int = Field(description="Tokens taken from the limits and kept.")
    charged_costs: dict[str, str] = Field(description="Money taken from the limits and kept.")


class UsageAnswer(BaseModel):
    """A usage report."""

    data: list[UsageRowBody]
    since: str = Field(description="Start of the period covered: usage is known per 15 minutes.")
    until: str = Field(description="End of the period covered, excluded.")
    tz: str
    by: list[str]


class RequestBody(BaseModel):
    """One call: what it used, how that was counted, how it ended."""

    id: str = Field(
        description="The request id, as in `x-request-id`.", examples=["req_a1b2c3d4e5f600000001"]
    )
    started_at: str = Field(examples=["2026-11-20T16:00:00.123+08:00"])
    key: str | None = Field(description="The key's name; null for a call without a key.")
    key_id: str | None
    client: str | None = Field(description="The OAuth client's name; null for a call without one.")
    client_id: str | None
    user: str
    user_id: str
    project: str | None
    project_id: str | None
    model: str | None = Field(description="Null when the caller named none that exists.")
    backend: str | None
    task: str | None
    endpoint: str
    status: int
    end_reason: EndReason
    first_byte_ms: float | None = Field(description="Time to the first byte of the answer.")
    duration_ms: float
    queued_ms: float = Field(description="Of the duration, how long the call waited for a limit.")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    counted: Counted = Field(
        description="Where the token counts come from: the backend reported them, they were counted with the model's"
        " tokenizer, or they are an estimate."
    )
    cost: str | None = Field(description="Exact; null for a model without a price.", examples=["0.00123"])
    currency: str | None
    charged: int = Field(description="Requests taken from the limits and kept.")
    charged_tokens: int
    charged_cost: str | None
    retries: int
    client_address: str


class DamageBody(BaseModel):
    """A place in the journal that could not be read and was skipped."""

    found_at: str
    segment: int
    description: str


class JournalBody(BaseModel):
    """How the way of the usage records is."""

    is_healthy: bool = Field(description="False while records cannot be written and calls are turned away.")
    waiting_records: int = Field(description="Written to the journal and not yet in the database.")
    waiting_bytes: int
    kept_since: str | None = Field(description="Older records were deleted; null when none ever was.")
    damage: list[DamageBody] = Field(description="What was skipped, newest first, at most 100.")
    damage_count: int
