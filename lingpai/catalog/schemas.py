"""What the model routes say: OpenAI's list, Anthropic's list, and our own page of a model."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from lingpai.catalog.interfaces import KeptTarget, Model
from lingpai.web.schemas import RequestBody

_API_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


def _one_line(api_key: SecretStr) -> SecretStr:
    """The key as it will stand in a header, where a line break would begin another one."""
    text = api_key.get_secret_value().strip()
    if not _API_KEY.fullmatch(text):
        raise ValueError("a key is one word of 1 to 4096 visible ASCII characters")
    return SecretStr(text)


ApiKey = Annotated[
    SecretStr,
    AfterValidator(_one_line),
    Field(
        description="The provider's key: stored encrypted, sent to this target only, never shown again.",
        json_schema_extra={"pattern": r"^\s*[\x21-\x7e]{1,4096}\s*$"},
    ),
]
# A key is sent to an address only.
_KEY_NEEDS_ADDRESS: Final[dict[str, Any]] = {
    "if": {"required": ["api_key"], "properties": {"api_key": {"type": "string"}}},
    "then": {"properties": {"target": {"pattern": "^https?://"}}},
}


class NewTarget(RequestBody):
    """A target to serve from now on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"target": "http://127.0.0.1:8000/v1"}], **_KEY_NEEDS_ADDRESS},
    )

    target: str = Field(
        min_length=1,
        max_length=2000,
        description="An OpenAI-compatible address, `ollama`, or (locally only) a Python file.",
    )
    api_key: ApiKey | None = None


class TargetKey(RequestBody):
    """The provider's key for a kept target."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"target": "https://api.example.com/v1", "api_key": "the-provider-s-key"}],
            **_KEY_NEEDS_ADDRESS,
        },
    )

    target: str = Field(min_length=1, max_length=2000, description="The target, as it was added.")
    api_key: ApiKey | None = Field(description="The new key; null removes the one that is there.")


class KeptKeyView(BaseModel):
    """What may be shown of a provider's key."""

    hint: str = Field(description="Its last four characters.", examples=["…x7Qa"])
    set_at: datetime = Field(description="Since when it is the one.")


class KeptTargetView(BaseModel):
    """A target that was added at run time."""

    target: str
    added_at: datetime
    is_served: bool = Field(description="False while it is not there; it is tried again and again.")
    models: list[str] = Field(description="The ids of its models.")
    api_key: KeptKeyView | None

    @classmethod
    def of(cls, kept: KeptTarget, models: Sequence[str] | None) -> "KeptTargetView":
        """The view of a target; `models` None when it is not served now."""
        key = kept.key
        return cls(
            target=kept.target,
            added_at=_moment(kept.added_at),
            is_served=models is not None,
            models=list(models or ()),
            api_key=None if key is None else KeptKeyView(hint=key.hint, set_at=_moment(key.set_at)),
        )


class KeptTargets(BaseModel):
    """All targets that were added at run time."""

    data: list[KeptTargetView]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


class CheckRequest(RequestBody):
    """A model to try out."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "lingpai/eliza"}]})

    model: str = Field(min_length=1, max_length=500, description="The model's id or alias.")


def openai_model(model: Model) -> dict[str, Any]:
    """A model as OpenAI lists it, with the task added (extra keys are allowed there)."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner,
        "task": model.task,
    }


def openai_list(models: list[Model]) -> dict[str, Any]:
    return {"object": "list", "data": [openai_model(model) for model in models]}


def anthropic_list(models: list[Model]) -> dict[str, Any]:
    """The same list as Anthropic's clients read it (they send `anthropic-version`)."""
    data = [
        {
            "type": "model",
            "id": model.id,
            "display_name": model.id,
            "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for model in models
    ]
    return {
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


class ModelBackend(BaseModel):
    """Where a model runs."""

    name: str
    kind: str
    state: str


class ModelPage(BaseModel):
    """Everything an operator may know of a model. `parameters`, `input` and `output` are JSON schemas."""

    id: str
    task: str
    is_task_certain: bool = Field(description="False where the task was guessed.")
    description: str
    aliases: list[str]
    status: str
    backends: list[ModelBackend]
    parameters: dict[str, Any]
    input: dict[str, Any]
    output: dict[str, Any]
    price: dict[str, Any] | None
    limits: list[str]
    user_limits: list[str]
    default_max_tokens: int | None
    has_tokenizer: bool

    @classmethod
    def of(cls, model: Model) -> "ModelPage":
        """The page of `model`."""
        backend = model.backend
        return cls(
            id=model.id,
            task=model.task,
            is_task_certain=model.is_task_certain,
            description=model.description,
            aliases=list(model.aliases),
            status=backend.state,
            backends=[ModelBackend(name=backend.name, kind=backend.kind, state=backend.state)],
            parameters=dict(model.parameters),
            input=dict(model.input),
            output=dict(model.output),
            price=None if model.price is None else model.price.as_written(),
            limits=list(model.limits),
            user_limits=list(model.user_limits),
            default_max_tokens=model.default_max_tokens,
            has_tokenizer=model.tokenizer is not None,
        )


class ModelPages(BaseModel):
    """Models that are served: as many as targets have, so there are no pages of them."""

    data: list[ModelPage]


class CheckStep(BaseModel):
    """One step of trying a model out; `ms` is how long it took."""

    name: str
    ok: bool
    ms: int
    detail: str


class Checked(BaseModel):
    """How trying a model out went."""

    model: str
    ok: bool
    steps: list[CheckStep]
