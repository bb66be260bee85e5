"""What an address of model calls is made of, and the common way: OpenAI's own shapes, passed through."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from lingpai.wire import openai
from lingpai.wire.multipart import Form

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange

Prepared = tuple[bytes, bytes]
"""The path at the backend, after its prefix, and the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One kind of model call."""

    name: str
    path: str
    tasks: frozenset[str] | None
    """Models of these tasks can answer here; None: any."""
    decoder: msgspec.json.Decoder[Any]
    prepare: Callable[["Exchange"], Prepared]
    convert: Callable[["Exchange", bytes], bytes]
    """Turns the backend's unary answer into ours."""
    read_form: Callable[[Form], Any] | None = None
    """The request in a form; None where only JSON is read."""
    may_answer_files: bool = False
    """Whether an answer may be something other than JSON: sound, or plain text."""
    backend_path: bytes = field(init=False)
    """The path of the same endpoint at an OpenAI-compatible backend, after its prefix."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "backend_path", self.path.removeprefix("/v1").encode())


def prepare_openai(exchange: "Exchange") -> Prepared:
    """The body as it came, but for the model's name, and usage asked for."""
    request, model, body = exchange.request, exchange.model, exchange.body
    changes: dict[str, Any] = {}
    if request.model != model.upstream_name:
        changes["model"] = model.upstream_name
    if request.stream and not request.wants_usage:
        # Usage is asked for in any case, for the record, and taken out again on the way back.
        changes["stream_options"] = {**(request.stream_options or {}), "include_usage": True}
    return exchange.endpoint.backend_path, openai.rewrite(body, changes) if changes else body


def echo_model(exchange: "Exchange", answer: bytes) -> bytes:
    """The caller reads the name they asked for, even if the backend calls the model something else."""
    if exchange.model_name == exchange.model.upstream_name:
        return answer
    return openai.rewrite(answer, {"model": exchange.model_name})
