"""`POST /v1/embeddings`: texts in, vectors out, as numbers or as base64 of little-endian float32 (W27 to W29)."""

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from lingpai.backends.engines.binding import bind_parameters, convert_payload
from lingpai.backends.engines.estimate import estimate_texts
from lingpai.backends.engines.models import LoadedModel
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.told_usage import told_usage
from lingpai.backends.engines.values import ResultError, encode, vectors
from lingpai.errors import LingpaiError

Items = list[str] | list[list[int]]


async def embeddings(request: Request, reply: Reply) -> None:
    """Vectors in the order of the input."""
    model = request.model()
    if model.task != "embedding":
        message = f"`{model.id}` makes no embeddings: its task is {model.task}."
        raise LingpaiError("unsupported_task", message, "model")
    items = read_items(request, request.required("input"), field="input")
    encoding = _encoding_format(request)
    _refuse_dimensions(model, request)
    bound = bind_parameters(model.signature, request.others({"model", "input", "encoding_format"}))
    headers = request.dropped_header(bound.dropped)
    rows = await embed(model, items, bound.arguments, field="input")
    body = encode(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": to_base64(row) if encoding == "base64" else row,
                }
                for index, row in enumerate(rows)
            ],
            "model": request.model_name,
            "usage": usage_of(items),
        }
    )
    await reply.json(body, headers=headers)


async def embed(
    model: LoadedModel, items: Items, arguments: Mapping[str, Any], *, field: str
) -> list[list[float]]:
    """One vector per item. A function annotated with `str` is called once per text, others with all of them; one with
    batch= gets its texts together with other callers'.
    """
    if model.takes_batches or model.signature.payload is str:
        payloads = [_payload(model, item, field=field) for item in items]
        rows: Any = await model.runner.values(payloads, arguments, field=field)
    else:
        payload = _payload(model, items, field=field)
        rows = await model.runner.value(payload, arguments)
    return vectors(rows, expected=len(items))


def read_items(request: Request, value: Any, *, field: str) -> Items:
    """The texts, or the token arrays, in an `input` of any of OpenAI's four forms. Raises LingpaiError."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        message = f"`{field}` must be a text or a list of texts, and not empty."
        raise LingpaiError("invalid_request", message, field)
    if _are_tokens(items):
        return [items]
    request.check_count(items, field=field)
    if all(isinstance(item, str) for item in items):
        if "" in items:
            raise LingpaiError("invalid_request", f"`{field}` holds an empty text.", field)
        return items
    if all(isinstance(item, list) and item and _are_tokens(item) for item in items):
        return items
    raise LingpaiError("invalid_request", f"`{field}` must hold texts only.", field)


def usage_of(items: Items) -> dict[str, Any]:
    """What the function told, else the tokens that were given; those of texts are estimated."""
    told = told_usage()
    if told is not None:
        return told
    if isinstance(items[0], list):
        count = sum(len(item) for item in items)
        return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}
    count = estimate_texts(item for item in items if isinstance(item, str))
    return {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count, "estimated": True}


def to_base64(row: Sequence[float]) -> str:
    """A vector as base64 of little-endian float32."""
    try:
        numbers = array("f", row)
    except (TypeError, OverflowError) as error:
        raise ResultError(f"returned a vector that is not all numbers: {error}") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _payload(model: LoadedModel, value: Any, *, field: str) -> Any:
    has_tokens = isinstance(value, list) and bool(value) and not isinstance(value[0], str)
    if not has_tokens:
        return convert_payload(model.signature, value, field=field)
    try:
        if model.signature.payload is not Any:
            return convert_payload(model.signature, value, field=field)
    except LingpaiError:
        pass
    raise LingpaiError(
        "invalid_request",
        f"`{field}` holds token ids, but `{model.id}` reads text. With LangChain, set "
        f"`check_embedding_ctx_length=False`.",
        field,
    )


def _are_tokens(items: list[Any]) -> bool:
    return all(type(item) is int for item in items)


def _encoding_format(request: Request) -> str:
    encoding = request.fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        message = "`encoding_format` must be `float` or `base64`."
        raise LingpaiError("invalid_request", message, "encoding_format")
    return str(encoding)


def _refuse_dimensions(model: LoadedModel, request: Request) -> None:
    known = "dimensions" in model.signature.parameters or model.signature.takes_anything
    if request.fields.get("dimensions") is not None and not known:
        message = f"`{model.id}` has a fixed number of dimensions. Leave `dimensions` out."
        raise LingpaiError("invalid_request", message, "dimensions")
