"""OpenAI's request bodies: the few fields the gateway needs, and rewriting a body without touching the rest.

Sources: the OpenAI API reference (chat completions, completions, embeddings) and the `openai` SDK's types.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire.body import read_body

_ABSENT: Final = (b"", b"null")
MAX_LENGTH: Final = 10_000_000
"""The most tokens that a call may ask for: no model generates more, and sums stay small."""


class Request(msgspec.Struct):
    """What the gateway reads of any model call. Everything else passes through unread."""

    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk of a stream."""
        return self.stream_options is not None and self.stream_options.get("include_usage") is True

    def check(self) -> None:
        """Refuse what no backend could make sense of. Raises LingpaiError `invalid_request`."""
        if self.stream_options and not isinstance(self.stream_options.get("include_usage"), bool | None):
            raise LingpaiError(
                "invalid_request",
                "`stream_options.include_usage` must be true or false.",
                param="stream_options.include_usage",
            )


class Generation(Request):
    """What calls for generated text have in common: how many answers, and how long."""

    n: int | float | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None

    def check_lengths(self) -> None:
        """Refuse lengths that are none. Raises LingpaiError `invalid_request`."""
        check_length("max_tokens", self.max_tokens)
        check_length("max_completion_tokens", self.max_completion_tokens)


class ChatRequest(Generation):
    messages: list[msgspec.Raw] | None = None

    def check(self) -> None:
        if self.stream_options is not None:
            super().check()
        if not self.messages:
            state = "missing" if self.messages is None else "empty"
            example = '[{"role": "user", "content": "Hello"}]'
            raise LingpaiError(
                "invalid_request", f'`messages` is {state}. Send "messages": {example}.', param="messages"
            )
        length = self.max_tokens
        if length is not None and (length.__class__ is not int or not 0 < length <= MAX_LENGTH):
            self.check_lengths()
        if self.max_completion_tokens is not None:
            self.check_lengths()


class CompletionRequest(Generation):
    prompt: msgspec.Raw = msgspec.Raw()
    best_of: int | float | None = None

    def check(self) -> None:
        super().check()
        if bytes(self.prompt) in _ABSENT:
            raise LingpaiError(
                "invalid_request", '`prompt` is missing. Send "prompt": "some text".', param="prompt"
            )
        self.check_lengths()


class EmbeddingRequest(Request):
    input: msgspec.Raw = msgspec.Raw()
    encoding_format: str | None = None

    def check(self) -> None:
        if bytes(self.input) in (*_ABSENT, b'""', b"[]"):
            raise LingpaiError(
                "invalid_request",
                "`input` is missing or empty. Send a text or a list of texts.",
                param="input",
            )
        if self.encoding_format not in (None, "float", "base64"):
            raise LingpaiError(
                "invalid_request", "`encoding_format` must be `float` or `base64`.", param="encoding_format"
            )
        if self.stream:
            raise LingpaiError(
                "invalid_request", "Embeddings cannot be streamed. Leave `stream` out.", param="stream"
            )


def check_length(name: str, value: Any) -> int | None:
    """The most tokens to generate, as `name` gives them; None when it does not. Raises LingpaiError `invalid_request`."""
    if value.__class__ is int and 1 <= value <= MAX_LENGTH:
        return int(value)  # the usual; the rest is for the unusual
    length = whole_number(name, value)
    if length is not None and not 1 <= length <= MAX_LENGTH:
        raise LingpaiError("invalid_request", f"`{name}` must be from 1 to {MAX_LENGTH}.", param=name)
    return length


def check_choices(fields: Mapping[str, Any], most: int) -> int:
    """How many answers are asked for, for each prompt. Raises LingpaiError `invalid_request` for more than `most`."""
    choices = 1
    for name in ("n", "best_of"):
        count = whole_number(name, fields.get(name))
        if count is not None:
            if not 1 <= count <= most:
                raise LingpaiError(
                    "invalid_request",
                    f"`{name}` must be from 1 to {most} (`gateway.max_choices`).",
                    param=name,
                )
            choices = max(choices, count)
    return choices


def whole_number(name: str, value: Any) -> int | None:
    """A whole number or nothing; some clients write 256.0. Raises LingpaiError `invalid_request` for all else."""
    if isinstance(value, msgspec.Raw):
        value = read_body(bytes(value), _ANY)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise LingpaiError("invalid_request", f"`{name}` must be a whole number.", param=name)


_ANY: Final = msgspec.json.Decoder()
CHAT: Final = msgspec.json.Decoder(ChatRequest)
COMPLETION: Final = msgspec.json.Decoder(CompletionRequest)
EMBEDDING: Final = msgspec.json.Decoder(EmbeddingRequest)

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


def is_unambiguous(body: bytes) -> bool:
    """Whether every reader takes the same `model` from `body`.

    JSON parsers differ on repeated names, and Go's matches names in any case, so a body with two spellings of the
    field could pass our check as one model and run as another. Such a body is rewritten before it is sent on.
    """
    return body.lower().count(b'"model"') == 1 and b"\\u00" not in body


def rewrite(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """`body` with top-level fields set (or removed, where the value is None); the other values keep their bytes.

    Repeated names collapse to the last one, and names that differ from a changed one only in case are dropped.
    """
    fields = _FIELDS.decode(body)
    folded = {name.casefold() for name in changes}
    kept: dict[str, Any] = {name: value for name, value in fields.items() if name.casefold() not in folded}
    kept.update((name, value) for name, value in changes.items() if value is not None)
    return _encode(kept)
