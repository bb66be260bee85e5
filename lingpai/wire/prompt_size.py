"""How many tokens the prompt of a request can have: at least about so many, at most so many.

The upper bound: a byte-level tokenizer makes at most one token of a byte, and JSON's escapes only make a text longer, so
a body never holds more tokens of text than bytes. What the model's template adds to that is allowed for by the message.
(Tokenizers that first decompose compatibility characters, as few do, can make more of some rare ones.)

Images, sound and files inside a request (data URLs, `input_audio`) are no text. Each counts a flat amount, both ways.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from lingpai.wire.token_estimate import TOKENS_PER_MESSAGE, estimate_tokens

TOKENS_PER_MEDIUM: Final = 1_500
"""What an image, a sound or a file counts: about what the larger vision models make of a large picture."""

TEMPLATE_TOKENS: Final = 64
"""The most that a chat template adds once: its own system prompt, and the beginning of the answer."""
MOST_PER_MESSAGE: Final = 16
"""The most that a chat template adds around each message."""

WALKED_BYTES: Final = 128 * 1024
"""Larger bodies are estimated from their bytes, not value by value: the event loop must not be held up."""

_TEXT_FIELDS: Final = (
    "messages", "prompt", "suffix", "input", "input_data", "system", "instructions", "query", "documents",
)  # fmt: skip
_SCHEMA_FIELDS: Final = ("tools", "functions", "response_format")
_BYTES_PER_SCHEMA_TOKEN: Final = 4
_MEDIUM_KEYS: Final = (
    b'"url"',
    b'"image_url"',
    b'"file_data"',
    b'"image"',
    b'"audio"',
    b'"input"',
    b'"file"',
)
_MEDIUM_PARTS: Final = frozenset(
    {"image_url", "input_image", "input_audio", "audio_url", "video_url", "file"}
)


class PromptSize(NamedTuple):
    """Tokens of a prompt: `likely` as estimated, `most` as an upper bound; `messages` and `media` in it."""

    likely: int
    most: int
    messages: int = 0
    media: int = 0


def prompt_size(body: bytes) -> PromptSize:
    """The size of the prompt in the JSON object `body`; a body of another kind (a form with a file) has no text."""
    if body.lstrip()[:1] != b"{":
        return PromptSize(0, 0)
    text, media = without_media(body)
    fields = _fields(text)
    count = _messages(fields)
    flat = media * TOKENS_PER_MEDIUM
    if fields and len(text) <= WALKED_BYTES:
        likely = _likely(fields)
    else:  # too large to walk, or holding what cannot be read
        likely = estimate_tokens(text.decode("utf-8", "replace"))
    most = len(text) + count * MOST_PER_MESSAGE + TEMPLATE_TOKENS + flat
    return PromptSize(min(likely + count * TOKENS_PER_MESSAGE + flat, most), most, count, media)


def prompt_texts(body: bytes) -> list[str]:
    """The texts of a prompt, for a tokenizer; empty when `body` is no JSON object."""
    texts: list[str] = []
    for value in _text_values(_fields(without_media(body)[0])):
        texts += _strings(value)
    return texts


def without_media(body: bytes) -> tuple[bytes, int]:
    """`body` with the media in it emptied, and how many those are.

    Found by the key they stand under, so that a text which merely begins like a data URL stays a text.
    """
    kept: list[bytes] = []
    media = done = 0
    for start in _media_starts(body):
        end = body.find(b'"', start)
        if end < 0:
            break
        if start < done:
            continue
        kept.append(body[done:start])
        done, media = end, media + 1
    return (b"".join([*kept, body[done:]]), media) if media else (body, 0)


def _media_starts(body: bytes) -> Iterator[int]:
    """Where the value of each medium begins, behind its quote, in order."""
    at = body.find(b'"data:')
    sound = body.find(b'"input_audio"')
    while at >= 0 or sound >= 0:
        if at >= 0 and (sound < 0 or at < sound):
            if body[max(at - 40, 0) : at].rstrip().removesuffix(b":").rstrip().endswith(_MEDIUM_KEYS):
                yield at + 6
            at = body.find(b'"data:', at + 6)
        else:
            key = body.find(b'"data"', sound, sound + 200)
            value = body.find(b'"', key + 6) if key >= 0 else -1
            if value >= 0:
                yield value + 1
            sound = body.find(b'"input_audio"', sound + 13)


_ANY: Final = msgspec.json.Decoder()
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _fields(body: bytes) -> Mapping[str, Any]:
    value = _decode(body, _ANY if len(body) <= WALKED_BYTES else _RAW)
    return value if isinstance(value, dict) else {}


def _decode(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Any] = _ANY) -> Any:
    """None for what no program can hold, such as 1e999; backends refuse it."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _messages(fields: Mapping[str, Any]) -> int:
    messages = fields.get("messages")
    if isinstance(messages, msgspec.Raw):
        return bytes(messages).count(b'"role"')
    return len(messages) if isinstance(messages, list) else 0


def _text_values(fields: Mapping[str, Any]) -> Iterator[Any]:
    for name in _TEXT_FIELDS:
        if name in fields:
            value = fields[name]
            yield _decode(value) if isinstance(value, msgspec.Raw) else value


def _likely(fields: Mapping[str, Any]) -> int:
    tokens = 0
    for value in _text_values(fields):
        tokens += sum(map(estimate_tokens, _strings(value))) + _token_ids(value)
    for name in _SCHEMA_FIELDS:
        if fields.get(name):
            tokens += len(msgspec.json.encode(fields[name])) // _BYTES_PER_SCHEMA_TOKEN
    return tokens


def _token_ids(value: Any) -> int:
    """Prompts and inputs may be lists of token ids: each is a token."""
    if not isinstance(value, list):
        return 0
    return sum(len(item) if isinstance(item, list) else isinstance(item, int) for item in value)


def _strings(value: Any) -> Iterator[str]:
    """Every text of a value: of a message its content, name and calls, not its role or the kinds of its parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("role", "type", "id", "tool_call_id") and key not in _MEDIUM_PARTS:
                yield from _strings(item)
