"""OpenAI's two shapes of generated text: chat completions and completions, whole and in chunks (W20, W21, W23)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from lingpai.backends.engines.replies import event
from lingpai.backends.engines.values import encode

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FinishedText:
    """One text as it came out."""

    index: int
    text: str
    finish_reason: str


class TextShape(Protocol):
    """One answer's frame: the same id and time over all of its chunks."""

    def whole(self, texts: Sequence[FinishedText], usage: Json) -> bytes:
        """The answer as one JSON body."""

    def opening(self, index: int) -> bytes:
        """What precedes the first piece of a text; may be nothing."""

    def piece(self, index: int, text: str) -> bytes:
        """One more piece of a text."""

    def closing(self, index: int, finish_reason: str) -> bytes:
        """The one chunk that ends a text."""

    def usage(self, usage: Json) -> bytes:
        """The chunk with the usage; only for callers who asked."""


@dataclass(frozen=True, slots=True)
class _Frame:
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    _unique: str = field(default_factory=lambda: uuid4().hex)

    def _framed(self, prefix: str, kind: str, choices: list[Json], usage: Json | None = None) -> bytes:
        body: Json = {
            "id": f"{prefix}-{self._unique}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            body["usage"] = usage
        return encode(body)


class ChatShape(_Frame):
    """`/v1/chat/completions`."""

    __slots__ = ()

    def whole(self, texts: Sequence[FinishedText], usage: Json) -> bytes:
        choices = [
            {
                "index": each.index,
                "message": {"role": "assistant", "content": each.text},
                "logprobs": None,
                "finish_reason": each.finish_reason,
            }
            for each in texts
        ]
        return self._framed("chatcmpl", "chat.completion", choices, usage)

    def opening(self, index: int) -> bytes:
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> bytes:
        return self._chunk(index, {"content": text})

    def closing(self, index: int, finish_reason: str) -> bytes:
        return self._chunk(index, {}, finish_reason)

    def usage(self, usage: Json) -> bytes:
        return event(self._framed("chatcmpl", "chat.completion.chunk", [], usage))

    def _chunk(self, index: int, delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._framed("chatcmpl", "chat.completion.chunk", [choice]))


class CompletionShape(_Frame):
    """`/v1/completions`."""

    __slots__ = ()

    def whole(self, texts: Sequence[FinishedText], usage: Json) -> bytes:
        choices = [_completion_choice(each.index, each.text, each.finish_reason) for each in texts]
        return self._framed("cmpl", "text_completion", choices, usage)

    def opening(self, index: int) -> bytes:  # noqa: ARG002  the chat's shape needs it
        return b""

    def piece(self, index: int, text: str) -> bytes:
        return self._chunk(index, text, None)

    def closing(self, index: int, finish_reason: str) -> bytes:
        return self._chunk(index, "", finish_reason)

    def usage(self, usage: Json) -> bytes:
        return event(self._framed("cmpl", "text_completion", [], usage))

    def _chunk(self, index: int, text: str, finish_reason: str | None) -> bytes:
        choice = _completion_choice(index, text, finish_reason)
        return event(self._framed("cmpl", "text_completion", [choice]))


def _completion_choice(index: int, text: str, finish_reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
