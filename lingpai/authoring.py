"""How a model is written: the decorator, and the few types its functions meet.

    import lingpai as lp

    @lp.model("acme/shout", task="text-generation")
    def shout(prompt: str, *, times: int = 1) -> str:
        return (prompt.upper() + "! ") * times

The positional parameter is the payload; keyword-only parameters are what callers may set. Decorating changes nothing
about the function or class: it stays callable and testable, and carries its definition for the worker to find.
"""

import logging
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lingpai.errors import did_you_mean

Served = TypeVar("Served", bound=Callable[..., Any])

TASKS: Final = frozenset({
    "automatic-speech-recognition",
    "chat",
    "completion",
    "embedding",
    "fill-mask",
    "generic",
    "image-classification",
    "image-segmentation",
    "image-to-image",
    "image-to-text",
    "object-detection",
    "question-answering",
    "rerank",
    "summarization",
    "tabular",
    "text-classification",
    "text-generation",  # becomes `chat` or `completion` when the payload's annotation is known
    "text-to-image",
    "text-to-speech",
    "text-to-video",
    "token-classification",
    "translation",
    "visual-question-answering",
    "zero-shot-classification",
})  # fmt: skip

TASK_ALIASES: Final[Mapping[str, str]] = {
    # Hugging Face
    "feature-extraction": "embedding",
    "image-text-to-text": "visual-question-answering",
    "ner": "token-classification",
    "sentence-similarity": "embedding",
    "sentiment-analysis": "text-classification",
    "tabular-classification": "tabular",
    "tabular-regression": "tabular",
    "text-ranking": "rerank",
    "text-to-audio": "text-to-speech",
    "text2text-generation": "completion",
    # ModelScope
    "auto-speech-recognition": "automatic-speech-recognition",
    "image-captioning": "image-to-text",
    "image-editing": "image-to-image",
    "image-object-detection": "object-detection",
    "image-to-image-generation": "image-to-image",
    "named-entity-recognition": "token-classification",
    "sentence-embedding": "embedding",
    "sentiment-classification": "text-classification",
    "text-summarization": "summarization",
    "text-to-image-synthesis": "text-to-image",
    "text-to-video-synthesis": "text-to-video",
}

LONGEST_BATCH_WAIT_MS: Final = 60_000.0
MOST_REPLICAS: Final = 64

_ATTRIBUTE: Final = "__lingpai_model__"
_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._:@+-]*"
_MODEL_ID: Final = re.compile(rf"{_PART}/{_PART}")
_ALIAS: Final = re.compile(rf"{_PART}(?:/{_PART})*")


class InputError(ValueError):
    """Raise this in a model when the caller's input is at fault: the caller gets a 400 with this message.

    `param` names the field, for instance ``"dimensions"``. Any other exception is the model's fault: a 500 that
    tells the caller nothing but that it happened.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a chat, as OpenAI's clients send it. `content` is a string or a list of parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The message's text: the content itself, or its text parts joined; empty when there is none."""
        if isinstance(self.content, str):
            return self.content
        parts = (part.get("text") for part in self.content or ())
        return "".join(part for part in parts if isinstance(part, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one call, for models that count them: return ``(result, lp.Usage(…))``, or yield one at the end.

    `cached_tokens` are part of `prompt_tokens`, `reasoning_tokens` part of `completion_tokens`, as in OpenAI's answers.
    Raises ValueError for negative counts and parts larger than the whole, TypeError for what is no whole number.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"):
            count = operator.index(getattr(self, name))  # NumPy's integers become Python's
            if count < 0:
                raise ValueError(f"{name} must not be negative, not {count}.")
            object.__setattr__(self, name, count)
        if self.cached_tokens > self.prompt_tokens or self.reasoning_tokens > self.completion_tokens:
            raise ValueError(
                "cached_tokens are part of prompt_tokens, reasoning_tokens of completion_tokens."
            )

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How calls are put together: `max_size` of them, or as many as came within `max_wait_ms` milliseconds.

    A batch also leaves late: while all of a model's `concurrency` is busy, calls wait and batches grow.
    """

    max_size: int = 64
    max_wait_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ValueError(f"Batch: max_size must be at least 1, not {self.max_size}.")
        if not 0 <= self.max_wait_ms <= LONGEST_BATCH_WAIT_MS:
            raise ValueError(
                f"Batch: max_wait_ms must be from 0 to {LONGEST_BATCH_WAIT_MS:g}, not {self.max_wait_ms}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What `load(self, context)` is given."""

    model_id: str
    device: str
    """Where the model should run: ``cpu`` or ``cuda``, or whatever `LINGPAI_DEVICE` says."""
    logger: logging.Logger
    cache_root: Path

    @property
    def cache_dir(self) -> Path:
        """A directory of this model's own that outlives the process; made on first use."""
        path = self.cache_root / self.model_id
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefinition:
    """What the decorator was told, and the function or class it stands on."""

    id: str
    task: str
    served: Callable[..., Any] = field(repr=False)
    description: str | None = None
    aliases: tuple[str, ...] = ()
    concurrency: int | None = None
    batch: Batch | None = None
    max_queue: int = 256
    timeout_s: float | None = None
    memory_mb: int | None = None
    replicas: int = 1


def model(
    id: str,  # noqa: A002  the word the documentation and every caller use
    *,
    task: str = "generic",
    description: str | None = None,
    aliases: Sequence[str] = (),
    concurrency: int | None = None,
    batch: Batch | bool | None = None,
    max_queue: int = 256,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    replicas: int = 1,
) -> Callable[[Served], Served]:
    """Mark a function or class as a model to be served; what is decorated comes back unchanged.

    - `id`: ``owner/name``; `aliases`: other names callers may use
    - `task`: a Hugging Face or ModelScope task name, `chat`, `completion`, `embedding`, … or `generic` (any JSON)
    - `description`: for lists; the first line of the docstring when not given
    - `concurrency`: how many calls may run at once; the others queue. A synchronous function runs in as many threads,
      one when not given; an asynchronous one is held back only when it is given. With `batch`, how many batches
    - `batch`: the function is given a list of payloads of calls with equal parameters, and returns a list of results of
      the same length; an exception in it (`lp.InputError`, say) is that one call's. True means ``lp.Batch()``
    - `max_queue`: how many calls (payloads, with `batch`) may wait; further ones are refused with 503 and Retry-After
    - `timeout_s`: seconds a call may run once its turn has come, a stream to its end. The caller then gets 504. An
      asynchronous function is cancelled; a synchronous one that goes on for long has its worker restarted
    - `memory_mb`: megabytes the worker may hold, children included, files that are mapped not; it is restarted over it.
      Models served by one worker add theirs up
    - `replicas`: how many worker processes share the calls; of a file's models the highest counts for the file

    All bounds of calls are per worker process.

    A class is instantiated once per worker; its `load(self, context)` is called once before the first call, if it
    has one, and calls go to `__call__`.

    Raises ValueError or TypeError where it stands, with the nearest known name, so that mistakes show on import.
    """
    _check_names(id, aliases)
    canonical = canonical_task(task)
    _check_bounds(
        concurrency=concurrency,
        max_queue=max_queue,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        replicas=replicas,
    )
    wanted_batch = _batch(batch)

    def mark(served: Served) -> Served:
        if not callable(served):
            raise TypeError(f"@lp.model({id!r}) must stand on a function or a class, not on {served!r}.")
        if definition_of(served) is not None:
            raise TypeError(
                f"@lp.model({id!r}): this is a model already. Give it further names with aliases=."
            )
        definition = ModelDefinition(
            id=id,
            task=canonical,
            served=served,
            description=description or summary(served),
            aliases=tuple(aliases),
            concurrency=concurrency,
            batch=wanted_batch,
            max_queue=max_queue,
            timeout_s=timeout_s,
            memory_mb=memory_mb,
            replicas=replicas,
        )
        setattr(served, _ATTRIBUTE, definition)
        return served

    return mark


def definition_of(value: object) -> ModelDefinition | None:
    """The definition `value` carries, or None.

    A subclass of a model is not one itself. A wrapper made with `functools.wraps` is, and is what gets called.
    """
    try:
        definition = vars(value).get(_ATTRIBUTE)
    except TypeError:  # no __dict__: a number, a string, an instance with slots
        return None
    if not isinstance(definition, ModelDefinition) or not callable(value):
        return None
    return definition if definition.served is value else replace(definition, served=value)


def canonical_task(task: str) -> str:
    """The one name this product uses for `task`. Raises ValueError with the nearest names for unknown ones."""
    known = TASK_ALIASES.get(task, task)
    if known not in TASKS:
        near = did_you_mean(task, (*TASKS, *TASK_ALIASES))
        raise ValueError(f"Unknown task {task!r}.{near} Use task='generic' for anything else.")
    return known


def summary(served: object) -> str | None:
    """The first line of an object's own docstring, or None."""
    text = getattr(served, "__doc__", None)
    return text.strip().partition("\n")[0].strip() or None if isinstance(text, str) else None


def default_device() -> str:
    """`LINGPAI_DEVICE`, else ``cuda`` where an NVIDIA device may be used, else ``cpu``."""
    chosen = os.environ.get("LINGPAI_DEVICE")
    if chosen:
        return chosen
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return "cuda" if Path("/dev/nvidiactl").exists() and not hidden else "cpu"


def _check_names(model_id: str, aliases: Sequence[str]) -> None:
    if callable(model_id):
        raise TypeError('Write @lp.model("owner/name"): the id is missing.')
    if not _MODEL_ID.fullmatch(model_id):
        raise ValueError(
            f"{model_id!r} is not a model id. Use owner/name with letters, digits and . _ : @ + -, for "
            f'instance @lp.model("acme/shout").'
        )
    if isinstance(aliases, str):
        raise TypeError(f"aliases must be a list of names: aliases=[{aliases!r}].")
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise ValueError(f"{alias!r} is not an alias. Use letters, digits and . _ : @ + - and slashes.")


def _check_bounds(**given: float | None) -> None:
    for name, value in given.items():
        lowest = 0 if name == "max_queue" else 1
        if value is None:
            continue
        if name == "timeout_s":
            if not value > 0:
                raise ValueError(f"timeout_s must be more than 0 seconds, not {value}.")
        elif isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {value!r}.")
        elif value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {value}.")
        elif name == "replicas" and value > MOST_REPLICAS:
            raise ValueError(f"replicas must be at most {MOST_REPLICAS}, not {value}.")


def _batch(batch: object) -> Batch | None:
    if isinstance(batch, Batch):
        return batch
    if batch is None or isinstance(batch, bool):
        return Batch() if batch else None
    raise TypeError(f"batch must be lp.Batch(max_size=…, max_wait_ms=…) or True, not {batch!r}.")
