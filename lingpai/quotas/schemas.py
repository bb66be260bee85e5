"""The bodies of ``/api/v1/limits``. Single limits are in `rows`, explanations in `explain`."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from lingpai.quotas.rows import LimitRow
from lingpai.web.formats import formatted
from lingpai.web.schemas import RequestBody


class LimitPage(TypedDict):
    """Limits, by subject. Send `next_cursor` as `cursor` to get the next page; it is null on the last one."""

    data: list[LimitRow]
    next_cursor: str | None


class ChangedLimits(TypedDict):
    """The limits that hold now. `warning` says what may be wrong with the question, such as an unknown model."""

    data: list[LimitRow]
    warning: str | None


def _named(subjects: list[str], fields: list[str], *, may_take_back: bool) -> dict[str, Any]:
    """How the JSON Schema says what names these subjects."""
    others = {"id", "user", "model"} - set(fields)
    given: dict[str, Any] = {field: {"type": "string"} for field in fields}
    absent: dict[str, Any] = {field: {"type": "null"} for field in sorted(others)}
    limits: dict[str, Any] = {} if may_take_back else {"limits": {"type": "array"}}
    return {
        "required": ["subject", *fields],
        "properties": {"subject": {"enum": subjects}, **given, **absent, **limits},
    }


_NAMED: Final[list[Any]] = [
    _named(["key", "client", "user", "project"], ["id"], may_take_back=False),
    _named(["model"], ["model"], may_take_back=True),
    _named(["model"], ["id"], may_take_back=True),
    _named(["user_model"], ["user", "model"], may_take_back=True),
]


class NewLimits(RequestBody):
    """The limits that replace those of one subject; an empty list (or ``none``) makes it unlimited."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"subject": "key", "id": "laptop", "limits": ["2000/day", "10/1s"]}],
            "oneOf": _NAMED,
        }
    )

    subject: Literal["key", "client", "user", "project", "model", "user_model"]
    id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The id or the name of the key, client, user, project or model.",
        json_schema_extra=formatted("user-name"),
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="For `user_model`: id, name, or `*` for each user.",
        json_schema_extra=formatted("user-name"),
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="For `model` and `user_model`: id or alias.",
        json_schema_extra=formatted("model-pattern"),
    )
    limits: list[Annotated[str, Field(json_schema_extra=formatted("limit"))]] | None = Field(
        max_length=20,
        description="null takes back what was set for a model or a user on it: the settings, or what is set for each "
        "user, hold again.",
        examples=[
            ["2000/day@Asia/Shanghai", "10/1s wait 5s", "100000 tokens/day", "5 USD/month", "8 concurrent"]
        ],
    )
