"""The texts in a model's answer, for counting tokens where the backend does not report them."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from lingpai.wire import sse
from lingpai.wire.token_estimate import BYTES_PER_TOKEN, estimate_texts, strings_in

WALKED_BYTES: Final = 128 * 1024
"""Larger answers are estimated from their length: the event loop must not be held up."""

# What a model says stands under these names, in OpenAI's answers and in ours; all else is about the answer.
_TEXT_KEYS: Final = frozenset({
    "content", "reasoning_content", "reasoning", "refusal", "text", "name", "arguments", "output", "prediction",
})  # fmt: skip
_CONTAINERS: Final = frozenset({"choices", "message", "delta", "tool_calls", "function", "results"})


def answer_texts(body: bytes) -> list[str]:
    """What the model said in a whole answer; nothing for what is no JSON."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return list(_texts(value))


def stream_texts(runs: Iterable[bytes]) -> list[str]:
    """What the model said in runs of whole events: one text, because a word may go over several events."""
    parts: list[str] = []
    for run in runs:
        for data in _data_of(run):
            parts += answer_texts(data)
    return ["".join(parts)]


def estimate_answer(body: bytes) -> int:
    """How many tokens a whole answer has, estimated."""
    texts = _walked(body)
    return len(body) // BYTES_PER_TOKEN if texts is None else estimate_texts(texts)


def estimate_stream(run: bytes) -> int:
    """How many tokens a run of whole events has, estimated."""
    tokens, parts = 0, []
    for data in _data_of(run):
        texts = _walked(data)
        if texts is None:
            tokens += len(data) // BYTES_PER_TOKEN
        else:
            parts += texts
    return tokens + estimate_texts(["".join(parts)])


def _data_of(run: bytes) -> Iterator[bytes]:
    return (data for event in sse.split_events(run) if (data := sse.event_data(event)) is not None)


def _walked(body: bytes) -> list[str] | None:
    """The texts of an answer, unless it is too large or nests too deeply to be walked through."""
    if len(body) > WALKED_BYTES:
        return None
    try:
        return answer_texts(body)
    except RecursionError:
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _CONTAINERS:
                yield from _texts(item)
            elif key in _TEXT_KEYS:
                yield from strings_in(item)
