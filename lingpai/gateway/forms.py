"""Forms with files on their way to a backend: read once, checked, and written anew.

To a backend goes a form of our own making, with one `model` in it, so that no two readers differ on what was asked.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire import inference, tasks
from lingpai.wire.multipart import Form, Part, read_form, write_form

if TYPE_CHECKING:
    from lingpai.gateway.endpoint import Prepared
    from lingpai.gateway.exchange import Exchange


def read(exchange: "Exchange", body: bytes, content_type: bytes) -> None:
    """Fill `exchange.request` and `.body` from a form. Raises LingpaiError `invalid_request`.

    `body` becomes the text fields as JSON: what later steps weigh is what was said, not the bytes of a sound.
    """
    read_request = exchange.endpoint.read_form
    assert read_request is not None  # noqa: S101  the step asks only endpoints that have one
    form = read_form(body, content_type)
    texts = {part.name: part.data.decode() for part in form.parts if part.filename is None}
    exchange.body = msgspec.json.encode(texts)
    exchange.request = read_request(form)


def inference_request(form: Form) -> inference.InferenceForm:
    """The request in a form sent to the inference endpoint. Raises LingpaiError `invalid_request`."""
    for name in ("parameters", "stream"):
        form.text(name)  # refuses a file
    if form.text("stream") in ("true", "1"):
        raise LingpaiError("invalid_request", "This endpoint does not stream. Leave `stream` out.", "stream")
    if all(part.name in ("model", "parameters", "stream") for part in form.parts):
        raise LingpaiError("invalid_request", "The form has no `input` and no `file`.", "input")
    return inference.InferenceForm(form=form, parameters=_parameters(form), model=form.text("model") or None)


def pass_on(exchange: "Exchange", form: Form) -> "Prepared":
    """The form for the same endpoint of the backend, naming the model as it does."""
    return exchange.endpoint.backend_path, _written(exchange, form.parts)


def prepare_inference(exchange: "Exchange", request: inference.InferenceForm) -> "Prepared":
    """A form for a worker's inference endpoint, or whatever a provider has for the model's task."""
    model, form = exchange.model, request.form
    if model.task in tasks.GENERATION:
        return _as_json(exchange, request)
    if model.backend.kind == "worker":
        return b"/inference", _written(exchange, [part for part in form.parts if part.name != "stream"])
    if model.task != tasks.TRANSCRIPTION:
        address = tasks.ADDRESSES.get(model.task)
        hint = f" Call {address}." if address else ""
        raise LingpaiError("unsupported_task", f"`{model.id}` takes no files here.{hint}", param="model")
    return b"/audio/transcriptions", _written(exchange, _transcription(form, request.parameters))


def _as_json(exchange: "Exchange", request: inference.InferenceForm) -> "Prepared":
    """What generates text reads text: the same call with JSON."""
    model, text = exchange.model, request.form.text("input")
    if text is None:
        message = f"`{model.id}` reads text. Send it as `input`."
        raise LingpaiError("invalid_request", message, "input")
    parameters = request.parameters or {}
    if model.backend.kind == "worker":
        fields: dict[str, Any] = {"model": model.upstream_name, "input": text, "parameters": parameters}
        return b"/inference", msgspec.json.encode(fields)
    parameters = inference.generation_parameters(parameters)
    path, body = inference.openai_request(model.task, model.upstream_name, text, parameters)
    return path, inference.encode(body)


def _transcription(form: Form, parameters: dict[str, Any] | None) -> list[Part]:
    part = form.part("input") or form.part("file") or form.part("audio")
    if part is None or part.filename is None:
        raise LingpaiError("invalid_request", "The form has no file called `input` or `file`.", "input")
    inference.check_parameter_names(parameters or {})
    parts = [Part("file", part.data, part.filename or "sound", part.media_type)]
    for name, value in (parameters or {}).items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        parts.append(Part(name, text.encode()))
    return [each for each in parts if each.name != "response_format"]


def _parameters(form: Form) -> dict[str, Any] | None:
    text = form.text("parameters")
    if not text:
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LingpaiError("invalid_json", "`parameters` is not valid JSON.", "parameters") from error
    if not isinstance(value, dict):
        raise LingpaiError("invalid_request", "`parameters` must be a JSON object.", "parameters")
    return value


def _written(exchange: "Exchange", parts: "list[Part] | tuple[Part, ...]") -> bytes:
    model = Part("model", exchange.model.upstream_name.encode())
    exchange.sent_type, body = write_form(
        [model, *(part for part in parts if part.name.casefold() != "model")]
    )
    return body
