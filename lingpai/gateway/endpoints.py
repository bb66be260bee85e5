"""The addresses of model calls: how each reads its request, what it sends to the backend, what it answers."""

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import httptools
import msgspec

from lingpai.gateway import forms
from lingpai.gateway.endpoint import Endpoint as Endpoint  # noqa: PLC0414  others name it from here
from lingpai.gateway.endpoint import Prepared, echo_model, prepare_openai
from lingpai.gateway.media import IMAGES, RERANK, SPEECH, TRANSCRIPTIONS
from lingpai.web.paths import usual_path
from lingpai.wire import embeddings, inference, openai, tasks

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange


def find_endpoint(url: bytes) -> tuple[Endpoint, str | None] | None:
    """The endpoint at `url` (path and maybe query), and the model named in the path; None when it is not ours."""
    endpoint = _BY_PATH.get(url)
    if endpoint is not None:
        return endpoint, None
    return _find_unusual(url)


def is_for_browsers(path: str) -> bool:
    """Whether pages of other origins may use `path`: model calls, and what their clients ask beside them."""
    return path.startswith("/v1/") or find_endpoint(path.encode()) is not None


def _find_unusual(url: bytes) -> tuple[Endpoint, str | None] | None:
    """Queries, the absolute form, doubled or trailing slashes, a model in the path, `/v1` twice or not at all."""
    try:
        path = httptools.parse_url(url).path
    except httptools.HttpParserInvalidURLError:
        return None
    # As the ASGI side reads it, so that no address means one thing here and another there.
    usual = usual_path(unquote(path.decode("latin-1"))) if path else ""
    endpoint = _BY_PATH.get(usual.encode())
    if endpoint is not None:
        return endpoint, None
    match = _INFERENCE_PATH.fullmatch(usual)
    return (INFERENCE, match[1]) if match else None


def _convert_embeddings(exchange: "Exchange", answer: bytes) -> bytes:
    return echo_model(exchange, embeddings.match_encoding(answer, exchange.request.encoding_format))


# -- /predict: the article's function service


def _prepare_predict(exchange: "Exchange") -> Prepared:
    model, payload = exchange.model, exchange.request.input_data
    if model.backend.kind == "worker":
        return b"/predict", msgspec.json.encode({"model": model.upstream_name, "input_data": payload})
    path, body = inference.openai_request(model.task, model.upstream_name, inference.read_value(payload), {})
    return path, inference.encode(body)


def is_free_form(exchange: "Exchange") -> bool:
    """Whether the answer is whatever a plain function returned: JSON of any shape, without usage."""
    return exchange.endpoint is PREDICT and exchange.model.backend.kind == "worker"


def _convert_predict(exchange: "Exchange", answer: bytes) -> bytes:
    if exchange.model.backend.kind == "worker":
        return answer
    output = inference.answer_output(exchange.model.task, msgspec.json.decode(answer))
    return msgspec.json.encode({"prediction": output["text"] if isinstance(output, dict) else output})


# -- /api/v1/generate: the article's text generation


def _prepare_generate(exchange: "Exchange") -> Prepared:
    request, model = exchange.request, exchange.model
    fields = inference.read_fields(exchange.body)
    for name in ("model", "prompt", "input", "stream"):
        fields.pop(name, None)
    parameters = inference.generation_parameters(fields)
    path, body = inference.openai_request(model.task, model.upstream_name, request.prompt, parameters)
    return path, inference.encode(body)


def _convert_generate(exchange: "Exchange", answer: bytes) -> bytes:
    parsed = msgspec.json.decode(answer)
    texts = inference.answer_texts(exchange.model.task, parsed)
    result = {
        "results": [{"text": text} for text in texts],
        "model": exchange.model_name,
        "usage": parsed.get("usage"),
    }
    return msgspec.json.encode(result)


# -- /api/v1/models/{owner}/{name}/inference


def _prepare_inference(exchange: "Exchange") -> Prepared:
    request, model = exchange.request, exchange.model
    if isinstance(request, inference.InferenceForm):
        return forms.prepare_inference(exchange, request)
    if model.backend.kind == "worker":
        fields = {
            "model": model.upstream_name,
            "input": request.input,
            "parameters": request.parameters or {},
        }
        return b"/inference", msgspec.json.encode(fields)
    payload = inference.read_value(request.input)
    parameters = inference.generation_parameters(request.parameters or {})
    path, body = inference.openai_request(model.task, model.upstream_name, payload, parameters)
    return path, inference.encode(body)


def _convert_inference(exchange: "Exchange", answer: bytes) -> bytes:
    parsed, model = msgspec.json.decode(answer), exchange.model
    output = (
        parsed["output"] if model.backend.kind == "worker" else inference.answer_output(model.task, parsed)
    )
    return msgspec.json.encode({
        "request_id": exchange.request_id.decode(),
        "model": exchange.model_name,
        "task": model.task,
        "output": output,
        "usage": parsed.get("usage"),
    })  # fmt: skip


CHAT: Final = Endpoint(
    name="chat.completions", path="/v1/chat/completions", tasks=tasks.GENERATION, decoder=openai.CHAT,
    prepare=prepare_openai, convert=echo_model,
)  # fmt: skip
COMPLETIONS: Final = Endpoint(
    name="completions", path="/v1/completions", tasks=tasks.GENERATION, decoder=openai.COMPLETION,
    prepare=prepare_openai, convert=echo_model,
)  # fmt: skip
EMBEDDINGS: Final = Endpoint(
    name="embeddings", path="/v1/embeddings", tasks=frozenset({tasks.EMBEDDING}), decoder=openai.EMBEDDING,
    prepare=prepare_openai, convert=_convert_embeddings,
)  # fmt: skip
PREDICT: Final = Endpoint(
    name="predict", path="/predict", tasks=None, decoder=inference.PREDICT,
    prepare=_prepare_predict, convert=_convert_predict,
)  # fmt: skip
GENERATE: Final = Endpoint(
    name="generate", path="/api/v1/generate", tasks=tasks.GENERATION, decoder=inference.GENERATE,
    prepare=_prepare_generate, convert=_convert_generate,
)  # fmt: skip
INFERENCE: Final = Endpoint(
    name="inference", path="/api/v1/models/{model}/inference", tasks=None, decoder=inference.INFERENCE,
    prepare=_prepare_inference, convert=_convert_inference, read_form=forms.inference_request,
)  # fmt: skip

ENDPOINTS: Final = (
    CHAT, COMPLETIONS, EMBEDDINGS, RERANK, TRANSCRIPTIONS, SPEECH, IMAGES, PREDICT, GENERATE, INFERENCE,
)  # fmt: skip

OTHER_PATHS: Final = {"/v2/rerank": RERANK}
"""Where else clients look for an endpoint: Cohere's look for this one there."""

_INFERENCE_PATH = re.compile(r"/api/v1/models/(.+)/inference", re.DOTALL)
# People paste a base URL with `/v1`, without it, or so that it comes twice.
_BY_PATH: Final[dict[bytes, Endpoint]] = {
    path.encode(): endpoint
    for endpoint in ENDPOINTS
    if endpoint is not INFERENCE
    for path in (endpoint.path, endpoint.path.removeprefix("/v1"))
} | {path.encode(): endpoint for path, endpoint in OTHER_PATHS.items()}
