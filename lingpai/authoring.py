"""How a model is written: the decorator, and the few types its functions meet.

    import lingpai as lp

    @lp.model("acme/shout", task="text-generation")
    def shout(prompt: str, *, times: int = 1) -> str:
        return (prompt.upper() + "! ") * times

The positional parameter is the payload; keyword-only parameters are what callers may set. Decorating changes nothing
about the function or class: it stays callable and testable, and carries its definition for the worker to find.
"""

import logging
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
    concurrency: int = 1


def model(
    id: str,  # noqa: A002  the word the documentation and every caller use
    *,
    task: str = "generic",
    description: str | None = None,
    aliases: Sequence[str] = (),
    concurrency: int = 1,
) -> Callable[[Served], Served]:
    """Mark a function or class as a model to be served; what is decorated comes back unchanged.

    - `id`: ``owner/name``; `aliases`: other names callers may use
    - `task`: a Hugging Face or ModelScope task name, `chat`, `completion`, `embedding`, … or `generic` (any JSON)
    - `description`: for lists; the first line of the docstring when not given
    - `concurrency`: how many calls of a synchronous function may run at once, each in a thread; the others queue.
      Asynchronous functions are not held back

    A class is instantiated once per worker; its `load(self, context)` is called once before the first call, if it
    has one, and calls go to `__call__`.

    Raises ValueError or TypeError where it stands, with the nearest known name, so that mistakes show on import.
    """
    _check_names(id, aliases)
    canonical = canonical_task(task)
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}.")

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
