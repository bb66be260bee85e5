"""The bodies of ``/api/v1/limits``. Single limits are in `rows`, explanations in `explain`."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from lingpai.quotas.rows import LimitRow
from lingpai.web.schemas import RequestBody


class LimitPage(TypedDict):
    """Limits, by subject. Send `next_cursor` as `cursor` to get the next page; it is null on the last one."""

    data: list[LimitRow]
    next_cursor: str | None


class ChangedLimits(TypedDict):
    """The limits that hold now. `warning` says what may be wrong with the question, such as an unknown model."""

    data: list[LimitRow]
    warning: str | None


class NewLimits(RequestBody):
    """The limits that replace those of one subject; an empty list (or ``none``) makes it unlimited."""

    subject: Literal["key", "client", "user", "project", "model", "user_model"]
    id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The id or the name of the key, client, user, project or model.",
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="For `user_model`: id, name, or `*` for each user.",
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=200, description="For `model` and `user_model`: id or alias."
    )
    limits: list[str] | None = Field(
        max_length=20,
        description="null takes back what was set for a model or a user on it: the settings, or what is set for each "
        "user, hold again.",
        examples=[
            ["2000/day@Asia/Shanghai", "10/1s wait 5s", "100000 tokens/day", "5 USD/month", "8 concurrent"]
        ],
    )
