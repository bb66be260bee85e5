"""Models that answer with text: chat completions and completions, in one piece or as a stream."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from lingpai.authoring import Message
from lingpai.backends.engines.binding import bind_parameters, convert, convert_payload
from lingpai.backends.engines.estimate import TOKENS_PER_MESSAGE, estimate_tokens
from lingpai.backends.engines.models import TEXT_TASKS, LoadedModel
from lingpai.backends.engines.replies import EventStream, Headers, Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.shapes import ChatShape, CompletionShape, FinishedText, TextShape
from lingpai.backends.engines.values import ResultError, plain
from lingpai.errors import LingpaiError

_FINISH_REASONS: Final = frozenset({"stop", "length", "content_filter"})
_TEXT_NAMES: Final = ("text", "generated_text", "summary_text", "translation_text")
"""Ours, and those of Hugging Face's pipelines."""
_DETAILS: Final = (
    ("prompt_tokens_details", "cached_tokens"),
    ("completion_tokens_details", "reasoning_tokens"),
)
_CONTROL_FIELDS: Final = frozenset({"model", "messages", "prompt", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class TextInput:
    """A payload ready for the function, and an estimate of its length."""

    payload: Any
    tokens: int


@dataclass(slots=True)
class TextRun:
    """One text while it comes out of the function."""

    index: int
    input: TextInput
    parts: list[str] = field(default_factory=list)
    finish_reason: str = "stop"
    reported: dict[str, int] | None = None
    """The usage the function itself told, if it did."""

    def add(self, piece: Any) -> str:
        """Take what the function yielded or returned; the text in it. Raises ResultError."""
        if isinstance(piece, list) and len(piece) == 1:
            piece = piece[0]  # a Hugging Face pipeline's batch of one
        if isinstance(piece, Mapping):
            piece = self._unwrap(piece)
        if not isinstance(piece, str):
            raise ResultError(
                f"gave {type(piece).__name__}; a text model returns or yields str, or a dict with `text`."
            )
        self.parts.append(piece)
        return piece

    def finished(self) -> FinishedText:
        return FinishedText(self.index, "".join(self.parts), self.finish_reason)

    def _unwrap(self, piece: Mapping[Any, Any]) -> Any:
        reason = piece.get("finish_reason")
        if reason is not None and reason not in _FINISH_REASONS:
            raise ResultError(f"gave the finish_reason {reason!r}; known are {sorted(_FINISH_REASONS)}.")
        self.finish_reason = reason or self.finish_reason
        if piece.get("usage") is not None:
            self.reported = _reported_usage(piece["usage"])
        return next((piece[name] for name in _TEXT_NAMES if name in piece), "")


async def chat_completions(request: Request, reply: Reply) -> None:
    """`POST /v1/chat/completions`; a model that takes a prompt gets the messages' texts, joined by blank lines."""
    model = text_model(request)
    input_ = messages_input(model, request.required("messages"), field="messages")
    await _answer(request, reply, model, [input_], ChatShape(request.model_name))


async def completions(request: Request, reply: Reply) -> None:
    """`POST /v1/completions`; `prompt` is a string or a list of strings, answered by one choice each."""
    model = text_model(request)
    prompts = _prompts(request.required("prompt"))
    request.check_count(prompts, field="prompt")
    inputs = [prompt_input(model, prompt, field="prompt") for prompt in prompts]
    await _answer(request, reply, model, inputs, CompletionShape(request.model_name))


def text_model(request: Request) -> LoadedModel:
    """The named model, if it answers with text."""
    model = request.model()
    if model.task not in TEXT_TASKS:
        endpoint = "/v1/embeddings" if model.task == "embedding" else "the inference endpoint"
        message = f"`{model.id}` does not generate text: its task is {model.task}. Call {endpoint}."
        raise LingpaiError("unsupported_task", message, "model")
    return model


def messages_input(model: LoadedModel, value: Any, *, field: str) -> TextInput:
    """The payload for `model` from a list of messages as OpenAI's clients send it."""
    messages = convert(value, list[Message], field=field)
    if not messages:
        raise LingpaiError("invalid_request", f"`{field}` is empty. Send at least one message.", field)
    tokens = sum(estimate_tokens(message.text) + TOKENS_PER_MESSAGE for message in messages)
    if not model.takes_messages:
        joined = "\n\n".join(message.text for message in messages)
        return TextInput(convert_payload(model.signature, joined, field=field), tokens)
    if model.signature.payload is Any or model.signature.takes_messages:
        return TextInput(messages, tokens)
    return TextInput(convert_payload(model.signature, value, field=field), tokens)


def prompt_input(model: LoadedModel, prompt: str, *, field: str) -> TextInput:
    """The payload for `model` from one string."""
    if model.takes_messages:
        return messages_input(model, [{"role": "user", "content": prompt}], field=field)
    return TextInput(convert_payload(model.signature, prompt, field=field), estimate_tokens(prompt))


async def run_text(model: LoadedModel, run: TextRun, arguments: Mapping[str, Any]) -> AsyncGenerator[str]:
    """The pieces of one text, noted in `run` as they come. Close the iterator to stop the function."""
    async with aclosing(model.runner.pieces(run.input.payload, arguments)) as pieces:
        async for piece in pieces:
            yield run.add(piece)


async def complete(model: LoadedModel, run: TextRun, arguments: Mapping[str, Any]) -> None:
    """Run one text to its end."""
    async with aclosing(run_text(model, run, arguments)) as pieces:
        async for _ in pieces:
            pass


def usage_of(runs: Sequence[TextRun]) -> dict[str, Any]:
    """What `runs` used together; marked as estimated unless the functions told all of it."""
    counts = [run.reported or _estimated_usage(run) for run in runs]
    prompt = sum(count["prompt_tokens"] for count in counts)
    completion = sum(count["completion_tokens"] for count in counts)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    for details, name in _DETAILS:
        if part := sum(count.get(name, 0) for count in counts):
            usage[details] = {name: part}
    return usage if all(run.reported for run in runs) else {**usage, "estimated": True}


async def _answer(
    request: Request, reply: Reply, model: LoadedModel, inputs: Sequence[TextInput], shape: TextShape
) -> None:
    bound = bind_parameters(model.signature, request.others(_taken_fields(request, model)))
    headers = request.dropped_header(bound.dropped)
    runs = [TextRun(index, input_) for index, input_ in enumerate(inputs)]
    wants_usage = request.object("stream_options").get("include_usage") is True
    if request.flag("stream"):
        await _stream(_Stream(model, runs, bound.arguments, shape), reply, headers, wants_usage=wants_usage)
        return
    for run in runs:
        await complete(model, run, bound.arguments)
    await reply.json(shape.whole([run.finished() for run in runs], usage_of(runs)), headers=headers)


def _taken_fields(request: Request, model: LoadedModel) -> frozenset[str]:
    """The fields that the function is not given. Raises LingpaiError when `n` asks for more than it can do.

    Several answers cannot be left out as other parameters can: a caller would read choices that are not there.
    """
    if model.signature.takes_anything or "n" in model.signature.parameters:
        return _CONTROL_FIELDS
    if request.fields.get("n") not in (None, 1):
        raise LingpaiError("invalid_request", "This model gives one answer; leave `n` out.", "n")
    return _CONTROL_FIELDS | {"n"}


@dataclass(frozen=True, slots=True)
class _Stream:
    model: LoadedModel
    runs: Sequence[TextRun]
    arguments: Mapping[str, Any]
    shape: TextShape

    async def events(self, run: TextRun) -> AsyncGenerator[bytes]:
        """The framed events of one text."""
        opening = self.shape.opening(run.index)
        async with aclosing(run_text(self.model, run, self.arguments)) as pieces:
            async for piece in pieces:
                if piece:
                    yield opening + self.shape.piece(run.index, piece)
                    opening = b""
        yield opening + self.shape.closing(run.index, run.finish_reason)


async def _stream(stream: _Stream, reply: Reply, headers: Headers, *, wants_usage: bool) -> None:
    async with EventStream(reply, headers) as out:
        for run in stream.runs:
            async with aclosing(stream.events(run)) as events:
                async for event in events:
                    await out.send(event)
        usage = stream.shape.usage(usage_of(stream.runs)) if wants_usage else b""
        await out.end(usage + b"data: [DONE]\n\n")


def _prompts(value: Any) -> list[str]:
    prompts = [value] if isinstance(value, str) else value
    if not isinstance(prompts, list) or not prompts:
        raise LingpaiError("invalid_request", "`prompt` must be a string or a list of strings.", "prompt")
    if not all(isinstance(prompt, str) for prompt in prompts):
        message = "`prompt` must be text: this model has no tokenizer to read token ids with."
        raise LingpaiError("invalid_request", message, "prompt")
    return prompts


def _estimated_usage(run: TextRun) -> dict[str, int]:
    return {"prompt_tokens": run.input.tokens, "completion_tokens": estimate_tokens("".join(run.parts))}


def _reported_usage(usage: Any) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens")
    counts = {name: plain(usage.get(name)) for name in names} if isinstance(usage, Mapping) else {}
    if not counts or not all(type(count) is int and count >= 0 for count in counts.values()):
        raise ResultError("gave a usage without whole numbers `prompt_tokens` and `completion_tokens`.")
    for details, name in _DETAILS:
        part = usage[details].get(name) if isinstance(usage.get(details), Mapping) else None
        if type(part) is int and part > 0:
            counts[name] = part
    return counts
