"""The shapes of ``/api/v1/usage``."""

from pydantic import BaseModel, Field


class UsageRowBody(BaseModel):
    """One group's usage. Of the group's fields only those that were asked for by `by` are there."""

    key: str | None = Field(default=None, description="The key's name; null for calls without a key.")
    key_id: str | None = None
    user: str | None = Field(default=None, description="The user's name.")
    model: str | None = None
    task: str | None = None
    day: str | None = Field(default=None, examples=["2026-11-20"])
    hour: str | None = Field(default=None, examples=["2026-11-20T15:00+08:00"])
    requests: int = Field(description="Calls that were admitted.")
    prompt_tokens: int
    completion_tokens: int
    cost: float = Field(description="0 as long as models have no prices.")
    errors: int = Field(description="Of `requests`, those that ended in an error or a time-out.")
    refused: int = Field(description="Calls turned away by a limit or a permission; not in `requests`.")


class UsageAnswer(BaseModel):
    """A usage report."""

    data: list[UsageRowBody]
    since: str = Field(description="Start of the period covered: usage is known per 15 minutes.")
    until: str = Field(description="End of the period covered, excluded.")
    tz: str
    by: list[str]
