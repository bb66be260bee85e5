"""OpenAI's request bodies: the few fields the gateway needs, and rewriting a body without touching the rest.

Sources: the OpenAI API reference (chat completions, completions, embeddings) and the `openai` SDK's types.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire.body import ANY, FIELDS, read_body

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
        options = self.stream_options
        if options and (
            not isinstance(options.get("include_usage"), bool | None)
            or sum(name.casefold() == "include_usage" for name in options) != ("include_usage" in options)
        ):
            raise LingpaiError(
                "invalid_request",
                "`stream_options.include_usage` must be true or false, and written so.",
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
        if length is not None and (type(length) is not int or not 0 < length <= MAX_LENGTH):
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
    if type(value) is int and 1 <= value <= MAX_LENGTH:
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
        value = read_body(bytes(value), ANY)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise LingpaiError("invalid_request", f"`{name}` must be a whole number.", param=name)


CHAT: Final = msgspec.json.Decoder(ChatRequest)
COMPLETION: Final = msgspec.json.Decoder(CompletionRequest)
EMBEDDING: Final = msgspec.json.Decoder(EmbeddingRequest)

_encode = msgspec.json.encode

MAX_FIELDS: Final = 1000
"""How many names the top level of a body may have."""

LENGTH_NAMES: Final = ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_length")
"""Names for the most tokens to generate, the most telling first."""

OTHER_LENGTH_NAMES: Final = (
    "n_predict", "num_predict", "max_output_tokens", "max_tokens_to_sample", "max_generated_tokens", "max_gen_tokens",
    "max_gen_len", "max_new_token", "tokens_to_generate", "max_decode_tokens",
)  # fmt: skip
"""Names of single engines for the same. llama.cpp reads its own before OpenAI's."""

INTERPRETED: Final = frozenset({
    "model", "stream", "stream_options", "messages", "prompt", "input", "input_data", "parameters", "options",
    "n", "best_of", "min_tokens", "encoding_format", "query", "documents", "file", "response_format", "stream_format",
    *LENGTH_NAMES, *OTHER_LENGTH_NAMES,
})  # fmt: skip
"""Fields that are read here. A name that differs from one of these in its case only is refused."""

_QUOTED: Final = {name: f'"{name}"'.encode() for name in INTERPRETED}
_USUAL: Final = INTERPRETED | {
    "temperature", "top_p", "top_k", "stop", "seed", "user", "tools", "tool_choice", "presence_penalty",
    "frequency_penalty", "logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "metadata",
}  # fmt: skip


def clear_body(body: bytes) -> bytes:
    """`body`, a JSON object that was read already, in which every reader finds the same fields.

    JSON parsers differ on repeated names, and Go's matches names in any case, so a body with two spellings of a field
    could pass our checks as one thing and run as another. Repeated names collapse to the last one, which is what is
    read here; values keep their bytes, and so does a body in which nothing can be repeated.

    Raises LingpaiError `invalid_request` for a name that is one of `INTERPRETED` but for its case, and for a body with
    more than `MAX_FIELDS` names.
    """
    fields = FIELDS.decode(body)
    if not _USUAL.issuperset(fields):
        _check_names(fields)
    # No name is written longer than it came, so what has the same length is the same.
    whole = _encode(fields)
    return whole if len(whole) != len(body) and _may_repeat(body, fields) else body


def _check_names(fields: Mapping[str, Any]) -> None:
    if len(fields) > MAX_FIELDS:
        raise LingpaiError("invalid_request", f"The body has more than {MAX_FIELDS} fields. Send fewer.")
    for name in fields.keys() - INTERPRETED:
        if (meant := name.casefold()) in INTERPRETED:
            raise LingpaiError(
                "invalid_request", f"`{name}` must be written `{meant}`: names are in lower case.", param=name
            )


def _may_repeat(body: bytes, fields: Mapping[str, Any]) -> bool:
    # A name may be hidden in escapes. `find`, because `in` takes bytes for a number first.
    if body.find(b"\\u00") >= 0:
        return True
    for name in fields:  # a loop: three times as fast as a generator
        quoted = _QUOTED.get(name)
        if quoted is not None and body.count(quoted) != 1:
            return True
    return False


def rewrite(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """`body` with top-level fields set (or removed, where the value is None); the other values keep their bytes.

    Repeated names collapse to the last one, and names that differ from a changed one only in case are dropped.
    """
    fields = FIELDS.decode(body)
    folded = {name.casefold() for name in changes}
    kept: dict[str, Any] = {name: value for name, value in fields.items() if name.casefold() not in folded}
    kept.update((name, value) for name, value in changes.items() if value is not None)
    return _encode(kept)
