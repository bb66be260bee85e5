"""How many tokens the prompt of a request can have: at least about so many, at most so many.

The upper bound: a byte-level tokenizer makes at most one token of a byte, and JSON's escapes only make a text longer, so
a body never holds more tokens of text than bytes. What the model's template adds to that is allowed for by the message.
(Tokenizers that first decompose compatibility characters, as few do, can make more of some rare ones.)

Every text in the body counts, whatever it stands under: templates and engines take their prompts from many fields. Images,
sound and files are no text; each counts a flat amount, both ways (see `prompt_media`).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from lingpai.wire.body import ANY, FIELDS
from lingpai.wire.prompt_media import without_media
from lingpai.wire.token_estimate import TOKENS_PER_MESSAGE, estimate_tokens

TEMPLATE_TOKENS: Final = 64
"""The most that a chat template adds once: its own system prompt, and the beginning of the answer."""
MOST_PER_MESSAGE: Final = 16
"""The most that a chat template adds around each message."""

WALKED_BYTES: Final = 128 * 1024
"""Larger bodies are estimated from their bytes, not value by value: the event loop must not be held up."""

_TEXT_FIELDS: Final = frozenset({
    "messages", "prompt", "suffix", "input", "input_data", "system", "instructions", "query", "documents",
})  # fmt: skip
_SCHEMA_FIELDS: Final = frozenset({"tools", "functions", "response_format"})
_BYTES_PER_SCHEMA_TOKEN: Final = 4
_SETTINGS: Final = frozenset({"model", "logit_bias"})
"""What no prompt is made of."""
FREE_BYTES: Final = 256
"""So much in all other fields together is settings, such as a user's name or a stop word; more may be a prompt."""

_SHORT: Final = {"role": 16, "type": 32}
"""Members of messages and their parts that say what those are, and how long they may be."""
_NAMES: Final = frozenset({
    "role", "type", "content", "text", "name", "id", "tool_calls", "tool_call_id", "function", "arguments", "url", "data",
    "image_url", "input_audio", "audio_url", "video_url", "file", "file_data", "file_id", "filename", "format", "detail",
    "refusal", "reasoning", "reasoning_content", "messages", "prompt", "query", "documents", "index", "title",
})  # fmt: skip
"""The names of members; others may be a text themselves."""


class PromptSize(NamedTuple):
    """Tokens of a prompt: `likely` as estimated, `most` as an upper bound; `messages` and `media` in it."""

    likely: int
    most: int
    messages: int = 0
    media: int = 0


def prompt_size(body: bytes, *, is_text: bool = True) -> PromptSize:
    """The size of the prompt in the JSON object `body`; a body of another kind (a form with a file) has no text.

    `is_text`: whether the model reads text.
    """
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return PromptSize(0, 0)
    text, media, flat = without_media(body, is_text=is_text)
    fields = _fields(text)
    count = _messages(fields)
    if fields and len(text) <= WALKED_BYTES:
        likely = _likely(fields)
    else:  # too large to walk, or holding what cannot be read
        likely = estimate_tokens(text.decode("utf-8", "replace"))
    most = most_tokens(len(text), count) + flat
    return PromptSize(min(likely + count * TOKENS_PER_MESSAGE + flat, most), most, count, media)


def most_tokens(size: int, messages: int) -> int:
    """The upper bound alone, for a JSON object of `size` bytes with so many messages and no media in it."""
    return size + messages * MOST_PER_MESSAGE + TEMPLATE_TOKENS


def messages_and_media(body: bytes) -> tuple[int, int]:
    """How many messages and media the JSON object `body` has."""
    text, media, _ = without_media(body)
    return _messages(_fields(text)), media


def prompt_texts(body: bytes) -> list[str]:
    """The texts of a prompt, for a tokenizer; empty when `body` is no JSON object."""
    fields = _fields(without_media(body).text)
    texts, _ = _texts(fields)
    return texts + [_written(fields[name]) for name in _SCHEMA_FIELDS if fields.get(name)]


def _fields(body: bytes) -> Mapping[str, Any]:
    value = _decode(body, ANY if len(body) <= WALKED_BYTES else FIELDS)
    return value if isinstance(value, dict) else {}


def _decode(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Any] = ANY) -> Any:
    """None for what no program can hold, such as 1e999; backends refuse it."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _messages(fields: Mapping[str, Any]) -> int:
    messages = fields.get("messages") or fields.get("input")
    if isinstance(messages, msgspec.Raw):
        return bytes(messages).count(b'"role"')
    if isinstance(messages, dict):
        messages = messages.get("messages")
    return sum(isinstance(each, dict) for each in messages) if isinstance(messages, list) else 0


def _texts(fields: Mapping[str, Any]) -> tuple[list[str], int]:
    """The texts of a prompt, and how many token ids stand in their place."""
    texts: list[str] = []
    others: list[str] = []
    ids = 0
    for name, field in fields.items():
        if name in _TEXT_FIELDS:
            value = _decode(field) if isinstance(field, msgspec.Raw) else field
            _add_strings(texts, value)
            if isinstance(value, list) and name != "messages":
                ids += _token_ids(value)
        elif isinstance(field, _MANY) and name not in _SCHEMA_FIELDS and name not in _SETTINGS:
            others.append(_written(field))
        if len(name) > MAX_NAME:
            others.append(name)
    if sum(map(len, others)) > FREE_BYTES:
        texts += others
    return texts, ids


def _written(value: Any) -> str:
    """A value as the text that a template may make of it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


_MANY: Final = (str, list, dict, msgspec.Raw)
MAX_NAME: Final = 64


def _likely(fields: Mapping[str, Any]) -> int:
    texts, tokens = _texts(fields)
    tokens += estimate_tokens("\n".join(texts))  # at once: a blank ends a token, and counts nothing
    if not _SCHEMA_FIELDS.isdisjoint(fields):
        for name in _SCHEMA_FIELDS:
            if fields.get(name):
                tokens += len(msgspec.json.encode(fields[name])) // _BYTES_PER_SCHEMA_TOKEN
    return tokens


def _token_ids(values: list[Any]) -> int:
    """Prompts and inputs may be lists of token ids: each is a token."""
    return sum(len(item) if isinstance(item, list) else isinstance(item, int) for item in values)


def _add_strings(texts: list[str], value: Any) -> None:
    """Every text of a value, names included, but for the role of a message and the kinds of its parts."""
    if isinstance(value, str):
        if value:
            texts.append(value)
    elif isinstance(value, list):
        for item in value:
            _add_strings(texts, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NAMES:
                texts.append(key)
            if not (isinstance(item, str) and len(item) <= _SHORT.get(key, -1)):
                _add_strings(texts, item)
