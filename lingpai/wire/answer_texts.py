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
        for event in sse.split_events(run):
            data = sse.event_data(event)
            if data is not None:
                parts += answer_texts(data)
    return ["".join(parts)]


def estimate_answer(body: bytes) -> int:
    """How many tokens a whole answer has, estimated."""
    if len(body) > WALKED_BYTES:
        return len(body) // BYTES_PER_TOKEN
    return estimate_texts(answer_texts(body))


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
