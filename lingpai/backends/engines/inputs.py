"""From an `input` and its parameters to calls of a function, whatever the task and however the function takes them."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lingpai.backends.engines.binding import bind_known_parameters, bind_parameters, convert
from lingpai.backends.engines.media_values import Hook, is_media
from lingpai.backends.engines.models import LoadedModel
from lingpai.backends.engines.tasks import main_part, payload_type, takes_object, task_of
from lingpai.errors import LingpaiError


@dataclass(frozen=True, slots=True)
class Item:
    """One call of the function."""

    payload: Any
    arguments: dict[str, Any]
    given: Any
    """The input as it came, with all its parts: some outputs are made with it."""
    dropped: tuple[str, ...] = ()
    """Parameters without effect."""
    has_own_arguments: bool = False
    """Whether some came with this input, so that another input's may differ."""


def read_item(
    model: LoadedModel,
    value: Any,
    parameters: Mapping[str, Any],
    *,
    field: str,
    hook: Hook,
    drops_unknown: bool = False,
) -> Item:
    """`value` and `parameters` as `model` wants them. Raises LingpaiError naming the part of `field` that does not fit.

    `drops_unknown` is for endpoints whose clients send parameters by habit; others refuse those.
    """
    signature, wanted = model.signature, payload_type(model.signature, model.task)
    parts = task_of(model.task).parts
    further: dict[str, Any] = {}
    given = value if isinstance(value, dict) or len(parts) == 1 else _with_parts(model, value, parameters)
    if model.task == "rerank":
        check_documents(given, field=field)
    if len(parts) > 1 and takes_object(wanted):
        # Parts may come beside the input; the function wants them in it.
        value, parameters = given, {name: told for name, told in parameters.items() if name not in parts}
    elif model.task == "rerank" and takes_list(wanted):
        value = [[given["query"], document] for document in given["documents"]]
        parameters = {name: told for name, told in parameters.items() if name not in parts}
    else:
        value, further, field = _take_apart(model, value, wanted, field=field)
        parameters = {**further, **parameters}
    payload = convert(value, wanted, field=field, hook=hook)
    if drops_unknown:
        bound = bind_parameters(signature, parameters, hook=hook)
    else:
        bound = bind_known_parameters(signature, parameters, model.id, hook=hook)
    return Item(payload, bound.arguments, given, bound.dropped, bool(further))


def takes_list(wanted: Any) -> bool:
    """Whether an annotation asks for a list."""
    kind = typing.get_origin(wanted) or wanted
    return isinstance(kind, type) and issubclass(kind, Sequence) and not issubclass(kind, str | bytes)


def check_documents(given: Any, *, field: str) -> None:
    """Refuse an input for reranking without a query or documents. Raises LingpaiError."""
    documents = given.get("documents") if isinstance(given, Mapping) else None
    if not isinstance(documents, list) or not documents:
        message = f"`{field}.documents` must be a list of texts, and not empty."
        raise LingpaiError("invalid_request", message, f"{field}.documents")
    if not isinstance(given.get("query"), str):
        raise LingpaiError("invalid_request", f"`{field}.query` must be a text.", f"{field}.query")


def _with_parts(model: LoadedModel, value: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    parts = task_of(model.task).parts
    beside = {name: told for name, told in parameters.items() if name in parts}
    return {main_part(model.signature, model.task): value, **beside}


def _take_apart(
    model: LoadedModel, value: Any, wanted: Any, *, field: str
) -> tuple[Any, dict[str, Any], str]:
    """The main part, the other parts, and the field the main one is in."""
    parts, main = task_of(model.task).parts, main_part(model.signature, model.task)
    if not isinstance(value, dict) or (main not in value and (len(parts) == 1 or is_media(wanted))):
        return value, {}, field
    if model.task == "generic" or (main not in value and wanted is Any):
        return value, {}, field
    if main not in value:
        raise LingpaiError("invalid_request", f"`{field}.{main}` is missing.", f"{field}.{main}")
    further = {name: told for name, told in value.items() if name != main}
    return value[main], further, f"{field}.{main}"
