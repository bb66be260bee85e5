"""What a backend says a call has used (OpenAI's `usage` object)."""

from typing import Final

import msgspec

from lingpai.wire.body import FIELDS


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts. `estimated` is Lingpai's own mark: counted by rule of thumb, not by the model's tokenizer."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    estimated: bool = False

    @property
    def cached_tokens(self) -> int:
        details = self.prompt_tokens_details
        return _count(details.cached_tokens) if details else 0

    @property
    def reasoning_tokens(self) -> int:
        details = self.completion_tokens_details
        return _count(details.reasoning_tokens) if details else 0


NONSENSE: Final = Usage(prompt_tokens=-1)
"""A usage that cannot be: `is_credible` says no, and `tokens` makes nothing of it."""


class _Answer(msgspec.Struct):
    usage: Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_USAGE: Final = msgspec.json.Decoder(Usage | None)

# Larger than any context window; a backend that reports more is wrong, and must not poison sums.
MAX_TOKENS: Final = 10**9


def answer_usage(body: bytes) -> Usage | None:
    """The usage in a unary answer; None when it has none, `NONSENSE` when it cannot be read.

    Raises msgspec.DecodeError when the answer is not a JSON object.
    """
    try:
        usage: Usage | None = _ANSWER.decode(body).usage
    except msgspec.ValidationError:
        FIELDS.decode(body)  # an object at all? Then only its usage is odd.
        return NONSENSE
    return usage


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The usage object; None when it is absent or null, `NONSENSE` when it is not as it should be (backends do lie)."""
    if not bytes(raw):
        return None
    try:
        usage: Usage | None = _USAGE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NONSENSE
    return usage


def _count(value: int | None) -> int:
    return min(max(value or 0, 0), MAX_TOKENS)


def is_credible(usage: Usage) -> bool:
    """Whether the counts can be true: none negative, none larger than any context window."""
    return 0 <= (usage.prompt_tokens or 0) <= MAX_TOKENS and 0 <= (usage.completion_tokens or 0) <= MAX_TOKENS


def tokens(usage: Usage | None) -> tuple[int, int, int, int]:
    """(prompt, completion, cached, reasoning) of `usage`, never negative, zeros when there is none."""
    if usage is None:
        return 0, 0, 0, 0
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    if not (0 <= prompt <= MAX_TOKENS and 0 <= completion <= MAX_TOKENS):
        prompt, completion = _count(prompt), _count(completion)
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None:
        return prompt, completion, 0, 0
    return prompt, completion, usage.cached_tokens, usage.reasoning_tokens
