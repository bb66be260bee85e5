"""What the model routes say: OpenAI's list, Anthropic's list, and our own page of a model."""

from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, Field

from lingpai.catalog.interfaces import Model
from lingpai.web.schemas import RequestBody


class NewTarget(RequestBody):
    """A target to serve from now on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"target": "http://127.0.0.1:8000/v1"}]}
    )

    target: str = Field(
        min_length=1,
        max_length=2000,
        description="An OpenAI-compatible address, `ollama`, or (locally only) a Python file.",
    )


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


def model_page(model: Model) -> dict[str, Any]:
    """Everything an operator may know of a model."""
    return {
        "id": model.id,
        "task": model.task,
        "is_task_certain": model.is_task_certain,
        "description": model.description,
        "aliases": list(model.aliases),
        "status": model.backend.state,
        "backends": [{"name": model.backend.name, "kind": model.backend.kind, "state": model.backend.state}],
        "parameters": dict(model.parameters),
        "input": dict(model.input),
        "output": dict(model.output),
        "price": None if model.price is None else model.price.as_written(),
        "limits": list(model.limits),
        "user_limits": list(model.user_limits),
        "default_max_tokens": model.default_max_tokens,
        "has_tokenizer": model.tokenizer is not None,
    }
