"""`POST /v1/inference` and `POST /v1/predict`: any task's model, called with its input as JSON or a form (seeds.md 0, 1)."""

from collections.abc import Mapping
from typing import Any, Final

from lingpai.backends.engines.binding import bind_known_parameters, convert
from lingpai.backends.engines.embedding import embed, read_items
from lingpai.backends.engines.embedding import usage_of as embedding_usage
from lingpai.backends.engines.estimate import estimate_texts, strings_in
from lingpai.backends.engines.inputs import Item, read_item
from lingpai.backends.engines.media_reading import reading
from lingpai.backends.engines.media_values import Hook, is_array, is_media
from lingpai.backends.engines.models import TEXT_TASKS, LoadedModel
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.tasks import file_kind, main_part, payload_type, task_of
from lingpai.backends.engines.text import TextInput, TextRun, complete, messages_input, prompt_input
from lingpai.backends.engines.text import usage_of as text_usage
from lingpai.backends.engines.told_usage import told_usage
from lingpai.backends.engines.values import encode
from lingpai.errors import LingpaiError

_CLASSIFIERS: Final = frozenset({"text-classification", "image-classification", "zero-shot-classification"})
_OUTER_FIELDS: Final = frozenset({"model", "input", "parameters"})


async def inference(request: Request, reply: Reply) -> None:
    """``{"model", "input", "parameters"}`` -> ``{"task", "output", "usage"}``.

    A list is a batch, answered by a list in the same order; but a list that the function's own annotation asks for
    is one input. `output` has the form of the task (docs/guides/tasks.md), whatever the function returned.
    """
    model = request.model()
    value = _input(request, model)
    taken = request.fields.keys() if request.is_form else _OUTER_FIELDS
    headers = request.dropped_header(request.others(taken))
    output, usage = await _run(request, model, value)
    body = encode({"task": model.task, "output": output, "usage": usage})
    await reply.json(body, headers=headers)


async def predict(request: Request, reply: Reply) -> None:
    """``{"model", "input_data"}`` -> what the function returned, unchanged."""
    model = request.model()
    value = request.required("input_data")

    def read(hook: Hook) -> tuple[Any, dict[str, Any]]:
        given = request.object("parameters")
        arguments = bind_known_parameters(model.signature, given, model.id, hook=hook).arguments
        if model.task in TEXT_TASKS:
            return _text_input(model, value, field="input_data").payload, arguments
        wanted = payload_type(model.signature, model.task)
        return convert(value, wanted, field="input_data", hook=hook), arguments

    payload, arguments = await reading(
        request.fetcher, read, field="input_data", array_of=file_kind(model.task)
    )
    await reply.json(encode(await model.runner.value(payload, arguments)))


def _input(request: Request, model: LoadedModel) -> Any:
    """The input; of a form also its file, or its other fields as an object."""
    if "input" in request.fields or not request.is_form:
        return request.required("input")
    further = request.others({"model", "parameters", "file"})
    if "file" not in request.fields:
        return further or request.required("input")
    file = request.fields["file"]
    return {main_part(model.signature, model.task): file, **further} if further else file


async def _run(request: Request, model: LoadedModel, value: Any) -> tuple[Any, dict[str, Any]]:
    parameters = request.object("parameters")
    if model.task not in TEXT_TASKS and model.task != "embedding":
        return await _call(request, model, value, parameters)
    arguments = bind_known_parameters(model.signature, parameters, model.id).arguments
    if model.task in TEXT_TASKS:
        return await _generate(request, model, value, arguments)
    items = read_items(request, value, field="input")
    return await embed(model, items, arguments, field="input"), embedding_usage(items)


async def _generate(
    request: Request, model: LoadedModel, value: Any, arguments: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    is_batch = isinstance(value, list) and not _is_message(value[0] if value else None)
    items = _batch(request, value) if is_batch else [value]
    inputs = [_text_input(model, item, field=_field(index, is_batch)) for index, item in enumerate(items)]
    runs = [TextRun(index, input_) for index, input_ in enumerate(inputs)]
    for run in runs:
        await complete(model, run, arguments)
    outputs = [{"text": run.finished().text} for run in runs]
    return outputs if is_batch else outputs[0], text_usage(runs)


async def _call(
    request: Request, model: LoadedModel, value: Any, parameters: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    def read(hook: Hook) -> tuple[list[Item], bool]:
        is_batch = isinstance(value, list) and not _is_one_payload(model, value, hook)
        values = _batch(request, value) if is_batch else [value]
        items = [
            read_item(model, each, parameters, field=_field(index, is_batch), hook=hook)
            for index, each in enumerate(values)
        ]
        return items, is_batch

    items, is_batch = await reading(request.fetcher, read, field="input", array_of=file_kind(model.task))
    if model.task == "rerank":
        for index, item in enumerate(items):
            request.check_count(item.given["documents"], field=f"{_field(index, is_batch)}.documents")
    make = task_of(model.task).output
    returned = await _values(model, items)
    outputs = [make(result, item.given) for result, item in zip(returned, items, strict=True)]
    output = outputs if is_batch else outputs[0]
    return output, _usage(model, value, output)


async def _values(model: LoadedModel, items: list[Item]) -> list[Any]:
    """What the function returns for each item; in one go where all have the request's parameters."""
    if not any(item.has_own_arguments for item in items):
        payloads = [item.payload for item in items]
        return await model.runner.values(payloads, items[0].arguments, field="input")
    return [await model.runner.value(item.payload, item.arguments) for item in items]


def _text_input(model: LoadedModel, value: Any, *, field: str) -> TextInput:
    if isinstance(value, dict) and "messages" in value:
        return messages_input(model, value["messages"], field=f"{field}.messages")
    if isinstance(value, dict):
        name = next((name for name in ("prompt", "text") if name in value), None)
        value, field = (value[name], f"{field}.{name}") if name else (value, field)
    if isinstance(value, list):
        return messages_input(model, value, field=field)
    if not isinstance(value, str):
        raise LingpaiError("invalid_request", f"`{field}` must be a text or a list of messages.", field)
    return prompt_input(model, value, field=field)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value


def _is_one_payload(model: LoadedModel, value: list[Any], hook: Hook) -> bool:
    wanted = payload_type(model.signature, model.task)
    if wanted is Any:
        return False
    if is_array(wanted):
        return not isinstance(value[0] if value else None, str | dict)  # numbers, not several files
    try:
        convert(value, wanted, field="input", hook=hook)
    except LingpaiError:
        return False
    return True


def _batch(request: Request, value: list[Any]) -> list[Any]:
    if not value:
        raise LingpaiError("invalid_request", "`input` is an empty list.", "input")
    request.check_count(value, field="input")
    return value


def _field(index: int, is_batch: bool) -> str:
    return f"input[{index}]" if is_batch else "input"


def _usage(model: LoadedModel, value: Any, output: Any) -> dict[str, Any]:
    told = told_usage()
    if told is not None:
        return told
    # Pictures and sound have no tokens; what stands beside them, and what is said of them, has.
    takes_media = any(is_media(kind) for kind in task_of(model.task).parts.values())
    prompt = 0 if takes_media else estimate_texts(strings_in(value))
    completion = 0 if model.task in _CLASSIFIERS else estimate_texts(strings_in(output))
    total = prompt + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "estimated": True,
    }
