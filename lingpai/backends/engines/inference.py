"""`POST /v1/inference` and `POST /v1/predict`: any task's model, called with its input as JSON (seeds.md 0 and 1)."""

from collections.abc import Mapping
from typing import Any, Final

from lingpai.backends.engines.binding import bind_known_parameters, convert_payload
from lingpai.backends.engines.embedding import embed, read_items
from lingpai.backends.engines.embedding import usage_of as embedding_usage
from lingpai.backends.engines.estimate import estimate_texts, strings_in
from lingpai.backends.engines.models import TEXT_TASKS, LoadedModel
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.text import TextInput, TextRun, complete, messages_input, prompt_input
from lingpai.backends.engines.text import usage_of as text_usage
from lingpai.backends.engines.values import encode, labels
from lingpai.errors import LingpaiError

_CLASSIFIERS: Final = frozenset({"text-classification", "image-classification"})
_MEDIA_TASKS: Final = frozenset({
    "automatic-speech-recognition",
    "image-classification",
    "image-segmentation",
    "image-to-image",
    "image-to-text",
    "object-detection",
    "visual-question-answering",
})  # fmt: skip


async def inference(request: Request, reply: Reply) -> None:
    """``{"model", "input", "parameters"}`` -> ``{"task", "output", "usage"}``.

    A list is a batch, answered by a list in the same order; but a list that the function's own annotation asks for
    is one input. `output` is typed by task: vectors, ``[{"label", "score"}]``, ``{"text"}``, else what the function
    returned.
    """
    model = request.model()
    value = request.required("input")
    arguments = bind_known_parameters(model.signature, request.object("parameters"), model.id).arguments
    headers = request.dropped_header(request.others({"model", "input", "parameters"}))
    output, usage = await _run(model, value, arguments)
    body = encode({"task": model.task, "output": output, "usage": usage})
    await reply.json(body, headers=headers)


async def predict(request: Request, reply: Reply) -> None:
    """``{"model", "input_data"}`` -> what the function returned, unchanged."""
    model = request.model()
    value = request.required("input_data")
    arguments = bind_known_parameters(model.signature, request.object("parameters"), model.id).arguments
    if model.task in TEXT_TASKS:
        payload = _text_input(model, value, field="input_data").payload
    else:
        payload = convert_payload(model.signature, value, field="input_data")
    await reply.json(encode(await model.runner.value(payload, arguments)))


async def _run(model: LoadedModel, value: Any, arguments: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    if model.task == "embedding":
        items = read_items(value, field="input")
        return await embed(model, items, arguments, field="input"), embedding_usage(items)
    if model.task in TEXT_TASKS:
        return await _generate(model, value, arguments)
    return await _call(model, value, arguments)


async def _generate(
    model: LoadedModel, value: Any, arguments: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    is_batch = isinstance(value, list) and not _is_message(value[0] if value else None)
    items = _batch(value) if is_batch else [value]
    inputs = [_text_input(model, item, field=_field(index, is_batch)) for index, item in enumerate(items)]
    runs = [TextRun(index, input_) for index, input_ in enumerate(inputs)]
    for run in runs:
        await complete(model, run, arguments)
    outputs = [{"text": run.finished().text} for run in runs]
    return outputs if is_batch else outputs[0], text_usage(runs)


async def _call(model: LoadedModel, value: Any, arguments: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    is_batch = isinstance(value, list) and not _is_one_payload(model, value)
    items = _batch(value) if is_batch else [value]
    payloads = [
        convert_payload(model.signature, item, field=_field(index, is_batch))
        for index, item in enumerate(items)
    ]
    outputs = [_output(model, await model.runner.value(payload, arguments)) for payload in payloads]
    output = outputs if is_batch else outputs[0]
    return output, _usage(model, value, output)


def _text_input(model: LoadedModel, value: Any, *, field: str) -> TextInput:
    if isinstance(value, dict) and "messages" in value:
        return messages_input(model, value["messages"], field=f"{field}.messages")
    if isinstance(value, dict) and "prompt" in value:
        value, field = value["prompt"], f"{field}.prompt"
    if isinstance(value, list):
        return messages_input(model, value, field=field)
    if not isinstance(value, str):
        raise LingpaiError("invalid_request", f"`{field}` must be a text or a list of messages.", field)
    return prompt_input(model, value, field=field)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value


def _is_one_payload(model: LoadedModel, value: list[Any]) -> bool:
    if model.signature.payload is Any:
        return False
    try:
        convert_payload(model.signature, value, field="input")
    except LingpaiError:
        return False
    return True


def _batch(value: list[Any]) -> list[Any]:
    if not value:
        raise LingpaiError("invalid_request", "`input` is an empty list.", "input")
    return value


def _field(index: int, is_batch: bool) -> str:
    return f"input[{index}]" if is_batch else "input"


def _output(model: LoadedModel, value: Any) -> Any:
    return labels(value) if model.task in _CLASSIFIERS else value


def _usage(model: LoadedModel, value: Any, output: Any) -> dict[str, Any]:
    prompt = 0 if model.task in _MEDIA_TASKS else estimate_texts(strings_in(value))
    completion = 0 if model.task in _CLASSIFIERS else estimate_texts(strings_in(output))
    total = prompt + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "estimated": True,
    }
