"""The plain calls (`/predict`, `/api/v1/generate`, `…/inference`) put into OpenAI's shapes and back.

They exist because articles, scripts and desktop clients use them; docs/concepts.md shows each with its answer.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire import tasks
from lingpai.wire.body import ANY, FIELDS, read_body
from lingpai.wire.media import data_url, decode_base64, sniff
from lingpai.wire.multipart import Form
from lingpai.wire.openai import INTERPRETED, LENGTH_NAMES
from lingpai.wire.rerank import document_texts

NO_PARAMETERS: Final = frozenset({
    "model", "stream", "stream_options", "messages", "prompt", "input", "query", "documents", "file",
})  # fmt: skip
"""Names that say what is called with what: they have a place of their own, and none among the parameters."""


class PredictRequest(msgspec.Struct):
    """`POST /predict`: the function's argument, and optionally a model."""

    input_data: msgspec.Raw = msgspec.Raw()
    model: str | None = None

    def check(self) -> None:
        """Refuse a request without an argument. Raises LingpaiError `invalid_request`."""
        if not bytes(self.input_data):
            raise LingpaiError(
                "invalid_request", '`input_data` is missing. Send {"input_data": …}.', param="input_data"
            )

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as a stream: never."""
        return False


class InferenceRequest(msgspec.Struct):
    """`POST /api/v1/models/{owner}/{name}/inference`."""

    input: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None
    model: str | None = None
    stream: bool | None = None

    def check(self) -> None:
        """Refuse a request without input, and streams. Raises LingpaiError `invalid_request`."""
        _refuse_stream(self.stream)
        if not bytes(self.input):
            raise LingpaiError("invalid_request", '`input` is missing. Send {"input": …}.', param="input")


class InferenceForm(InferenceRequest):
    """The same, sent as a form; never read from JSON."""

    form: Form = Form(())

    def check(self) -> None:
        """Nothing is left to check: the form was, when it was read."""


class GenerateRequest(msgspec.Struct):
    """`POST /api/v1/generate`: `prompt` and any generation parameters beside it."""

    prompt: str | list[str] | None = None
    model: str | None = None
    stream: bool | None = None

    def check(self) -> None:
        """Refuse a request without a prompt, and streams. Raises LingpaiError `invalid_request`."""
        _refuse_stream(self.stream)
        if self.prompt is None:
            raise LingpaiError(
                "invalid_request", '`prompt` is missing. Send {"prompt": "…"}.', param="prompt"
            )


def _refuse_stream(stream: bool | None) -> None:
    if stream:
        raise LingpaiError(
            "invalid_request",
            "This endpoint does not stream. Use /v1/chat/completions with `stream`.",
            param="stream",
        )


PREDICT: Final = msgspec.json.Decoder(PredictRequest)
INFERENCE: Final = msgspec.json.Decoder(InferenceRequest)
GENERATE: Final = msgspec.json.Decoder(GenerateRequest)


def read_value(raw: msgspec.Raw) -> Any:
    """Any JSON value. Raises LingpaiError `invalid_json` for what no program can hold (1e999)."""
    return read_body(bytes(raw), ANY)


def read_fields(body: bytes) -> dict[str, Any]:
    """The fields of an object, their values unread: they keep their bytes on the way to the backend."""
    return {name: raw for name, raw in read_body(body, FIELDS).items() if bytes(raw) != b"null"}


def generation_parameters(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with every name for the length turned into `max_tokens`.

    Raises LingpaiError `invalid_request` for what is not a parameter, or the name of one in another case.
    """
    check_parameter_names(fields)
    parameters = {name: value for name, value in fields.items() if name not in LENGTH_NAMES}
    for name in LENGTH_NAMES:
        if fields.get(name) is not None:
            parameters["max_tokens"] = fields[name]
            break
    return parameters


def check_parameter_names(fields: Mapping[str, Any]) -> None:
    """Refuse, among parameters for a backend that reads them beside `model`, what would be taken for something else.

    Raises LingpaiError `invalid_request`.
    """
    for name in fields:
        meant = name.casefold()
        if meant in NO_PARAMETERS or (meant != name and meant in INTERPRETED):
            raise LingpaiError("invalid_request", f"`{name}` is no parameter. Leave it out.", param=name)


def openai_request(
    task: str, model: str, payload: Any, parameters: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """The OpenAI path (without its prefix) and body for `payload` on a model of `task`.

    Raises LingpaiError `invalid_request` when the payload does not fit, `unsupported_task` when the task has no such
    call.
    """
    # Nothing among the parameters replaces what was checked.
    parameters = {name: value for name, value in parameters.items() if name not in NO_PARAMETERS}
    if task == tasks.CHAT:
        return b"/chat/completions", {"model": model, "messages": as_messages(payload), **parameters}
    if task == tasks.COMPLETION:
        return b"/completions", {"model": model, "prompt": payload, **parameters}
    if task == tasks.EMBEDDING:
        return b"/embeddings", {"model": model, "input": payload, "encoding_format": "float", **parameters}
    if task == tasks.RERANK:
        return b"/rerank", {"model": model, **_rerank_fields(payload), **parameters}
    if task == tasks.TEXT_TO_IMAGE:
        prompt = payload.get("prompt") if isinstance(payload, dict) else payload
        return b"/images/generations", {"model": model, "prompt": prompt, **parameters}
    hint = f" Call {tasks.ADDRESSES[task]}." if task in tasks.ADDRESSES else ""
    message = f"`{model}` ({task}) cannot be called this way.{hint}"
    raise LingpaiError("unsupported_task", message, param="model")


def _rerank_fields(payload: Any) -> dict[str, Any]:
    if not isinstance(payload, dict) or not isinstance(payload.get("documents"), list):
        message = 'For reranking send {"query": "…", "documents": ["…", "…"]}.'
        raise LingpaiError("invalid_request", message, param="input")
    return {"query": payload.get("query"), "documents": document_texts(payload["documents"])}


def as_messages(payload: Any) -> list[Any]:
    """Chat messages from what callers of the plain endpoints send: a text, messages, or an object holding them."""
    if isinstance(payload, str):
        return [{"role": "user", "content": payload}]
    if isinstance(payload, dict) and isinstance(payload.get("messages"), list):
        return list(payload["messages"])
    if isinstance(payload, list) and payload and all(isinstance(item, dict) for item in payload):
        return payload
    raise LingpaiError(
        "invalid_request", 'For a chat model send a text, or a list of messages [{"role": "user", "content": "…"}].',
        param="input",
    )  # fmt: skip


def answer_output(task: str, answer: Any) -> Any:
    """What the model said, out of an OpenAI answer: `{"text"}`, a list of vectors, or the form of the task's own.

    Raises KeyError (a field is missing), IndexError (no choices) or TypeError (anything of another type than OpenAI's)
    when the answer is not of the expected shape, and nothing else.
    """
    if task == tasks.EMBEDDING:
        items = list(answer["data"])
        if not all(isinstance(item, dict) and isinstance(item["embedding"], list) for item in items):
            raise TypeError("an embedding is not an object with a list")
        return [item["embedding"] for item in sorted(items, key=lambda item: item.get("index", 0))]
    if task == tasks.RERANK:
        ranks = [{"index": item["index"], "score": item["relevance_score"]} for item in answer["results"]]
        return sorted(ranks, key=lambda rank: -rank["score"])
    if task == tasks.TEXT_TO_IMAGE:
        return [{"image": _image_address(item)} for item in answer["data"]]
    return {"text": answer_texts(task, answer)[0]}


def _image_address(item: dict[str, Any]) -> str:
    text = item.get("b64_json")
    if text is None:
        return str(item["url"])
    return f"{data_url(b'', sniff(decode_base64(text[:64])) or 'image/png')}{text}"


def answer_texts(task: str, answer: Any) -> list[str]:
    """The generated texts of an OpenAI answer, one per choice. Raises KeyError and TypeError like `answer_output`."""
    if task == tasks.CHAT:
        contents = [choice["message"]["content"] for choice in answer["choices"]]
        texts = ["" if content is None else content for content in contents]  # null beside tool calls
    else:
        texts = [choice["text"] for choice in answer["choices"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a generated text is not a string")
    return texts


def encode(body: dict[str, Any]) -> bytes:
    """A request body as JSON."""
    return msgspec.json.encode(body)
