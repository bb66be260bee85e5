"""The tasks: what a model's function gets and what it may return, one line for each.

An input has one main part; some tasks have more (`question` beside `image`). A function takes them as it likes:

- annotated as an object (dict, TypedDict, dataclass, Struct): all of it
- with the further parts as keyword-only parameters: the main part as payload, the rest by name
- without an annotation: the main part as the task's own type (`lp.Image`, …), or a dict where there are several
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from lingpai.backends.engines import output_media, output_texts
from lingpai.backends.engines.binding import CallSignature
from lingpai.backends.engines.media_values import media_schema
from lingpai.backends.engines.values import labels
from lingpai.media import Audio, File, Image

Output = Callable[[Any, Any], Any]
"""(what the function returned, the input as it came) -> what is answered. Raises ResultError."""

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_WHOLE: Final[Schema] = {"type": "integer"}
_DATA_URL: Final[Schema] = {"type": "string", "format": "uri", "description": "A data URL."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of model. `parts` are the input's, the main one first; `output` makes the answer."""

    output: Output
    output_schema: Schema
    parts: Mapping[str, Any] = field(default_factory=lambda: {"input": Any})


class ZeroShotInput(typing.TypedDict):
    text: str
    candidate_labels: list[str]


class QuestionInput(typing.TypedDict):
    question: str
    context: str


class VisualQuestionInput(typing.TypedDict):
    image: Image
    question: str


class RerankInput(typing.TypedDict):
    query: str
    documents: list[str]


class EditInput(typing.TypedDict):
    image: Image
    prompt: typing.NotRequired[str]


_OBJECTS: Final[Mapping[str, Any]] = {
    "image-to-image": EditInput,
    "question-answering": QuestionInput,
    "rerank": RerankInput,
    "visual-question-answering": VisualQuestionInput,
    "zero-shot-classification": ZeroShotInput,
}
"""What an unannotated function gets where the input has several parts."""


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _labels(value: Any, given: Any) -> Any:  # noqa: ARG001  every task's output has this form
    return labels(value)


_LABELS: Final = _list(_object("label", "score", label=_TEXT, score=_NUMBER))
_TEXT_OBJECT: Final = _object("text", text=_TEXT)
_PICTURES: Final = _list(_object("image", image=_DATA_URL))
_BOX: Final = _object("xmin", "ymin", "xmax", "ymax", xmin=_NUMBER, ymin=_NUMBER, xmax=_NUMBER, ymax=_NUMBER)
_SEGMENTS: Final = _list(_object("start", "end", "text", start=_NUMBER, end=_NUMBER, text=_TEXT))

_TEXT_TASK: Final = Task(output=output_texts.text, output_schema=_TEXT_OBJECT, parts={"text": str})

TASKS: Final[Mapping[str, Task]] = {
    "automatic-speech-recognition": Task(
        output=output_media.transcript,
        output_schema=_object(
            "text", text=_TEXT, segments=_SEGMENTS, language=_TEXT, duration=_NUMBER, words=_list({})
        ),
        parts={"audio": Audio},
    ),
    "chat": _TEXT_TASK,
    "completion": _TEXT_TASK,
    "embedding": Task(output=output_texts.anything, output_schema=_list(_list(_NUMBER)), parts={"text": str}),
    "fill-mask": Task(
        output=output_texts.fillings,
        output_schema=_list(_object("token", "score", token=_TEXT, score=_NUMBER, sequence=_TEXT)),
        parts={"text": str},
    ),
    "generic": Task(output=output_texts.anything, output_schema={}),
    "image-classification": Task(output=_labels, output_schema=_LABELS, parts={"image": Image}),
    "image-segmentation": Task(
        output=output_media.masks,
        output_schema=_list(_object("label", "mask", label=_TEXT, score=_NUMBER, mask=_DATA_URL)),
        parts={"image": Image},
    ),
    "image-to-image": Task(
        output=output_media.pictures, output_schema=_PICTURES, parts={"image": Image, "prompt": str}
    ),
    "image-to-text": Task(output=output_texts.text, output_schema=_TEXT_OBJECT, parts={"image": Image}),
    "object-detection": Task(
        output=output_media.boxes,
        output_schema=_list(_object("label", "box", label=_TEXT, score=_NUMBER, box=_BOX)),
        parts={"image": Image},
    ),
    "question-answering": Task(
        output=output_texts.answer,
        output_schema=_list(_object("answer", answer=_TEXT, score=_NUMBER, start=_WHOLE, end=_WHOLE)),
        parts={"question": str, "context": str},
    ),
    "rerank": Task(
        output=output_texts.ranks,
        output_schema=_list(_object("index", "score", index=_WHOLE, score=_NUMBER)),
        parts={"query": str, "documents": list[str]},
    ),
    "summarization": _TEXT_TASK,
    "tabular": Task(output=output_texts.rows, output_schema=_list({}), parts={"rows": list[Any]}),
    "text-classification": Task(output=_labels, output_schema=_LABELS, parts={"text": str}),
    "text-to-image": Task(output=output_media.pictures, output_schema=_PICTURES, parts={"prompt": str}),
    "text-to-speech": Task(
        output=output_media.speech, output_schema=_object("audio", audio=_DATA_URL), parts={"text": str}
    ),
    "text-to-video": Task(
        output=output_media.film, output_schema=_object("video", video=_DATA_URL), parts={"prompt": str}
    ),
    "token-classification": Task(
        output=output_texts.spans,
        output_schema=_list(
            _object("label", label=_TEXT, text=_TEXT, start=_WHOLE, end=_WHOLE, score=_NUMBER)
        ),
        parts={"text": str},
    ),
    "translation": _TEXT_TASK,
    "visual-question-answering": Task(
        output=output_texts.text, output_schema=_TEXT_OBJECT, parts={"image": Image, "question": str}
    ),
    "zero-shot-classification": Task(
        output=_labels, output_schema=_LABELS, parts={"text": str, "candidate_labels": list[str]}
    ),
}


def task_of(name: str) -> Task:
    """The task called `name`; one that is not listed is generic."""
    return TASKS.get(name, TASKS["generic"])


def payload_type(signature: CallSignature, name: str) -> Any:
    """What the function's payload is: its annotation, else what the task says.

    Text and generic models without an annotation get the JSON value as it came, as they always did.
    """
    if signature.payload is not Any:
        return signature.payload
    parts = task_of(name).parts
    if name in _OBJECTS and not _takes_further_parts(signature, parts):
        return _OBJECTS[name]
    first = parts[main_part(signature, name)]
    return first if first in (Image, Audio) or name in _OBJECTS or name == "tabular" else Any


def file_kind(name: str) -> type[File]:
    """The kind of file that a task's input is, or `File` where it may be any."""
    kinds = task_of(name).parts.values()
    return next((kind for kind in (Audio, Image) if kind in kinds), File)


def main_part(signature: CallSignature, name: str) -> str:
    """The part that is the payload: the one the payload is named after, else the task's first."""
    parts = task_of(name).parts
    return signature.payload_name if signature.payload_name in parts else next(iter(parts))


def takes_object(wanted: Any) -> bool:
    """Whether an annotation asks for a JSON object."""
    kind = typing.get_origin(wanted) or wanted
    if not isinstance(kind, type):
        return False
    return (
        typing.is_typeddict(kind)
        or dataclasses.is_dataclass(kind)
        or issubclass(kind, msgspec.Struct | Mapping)
    )


def input_schema(signature: CallSignature, name: str) -> dict[str, Any]:
    """A JSON schema of one `input` for a model of task `name`."""
    wanted, parts = payload_type(signature, name), task_of(name).parts
    main = main_part(signature, name)
    if len(parts) == 1 or takes_object(wanted):
        return _schema(parts[main] if wanted is Any else wanted)
    # Several parts, of which the function takes one as payload and the others by name.
    others = {part: kind for part, kind in parts.items() if part != main and part in signature.parameters}
    properties = {main: _schema(parts[main] if wanted is Any else wanted)}
    properties |= {part: _schema(signature.parameters[part].type) for part in others}
    required = [main, *(part for part in others if signature.parameters[part].is_required)]
    return {"type": "object", "properties": properties, "required": required}


def output_schema(name: str) -> dict[str, Any]:
    """A JSON schema of one `output` of a model of task `name`."""
    return dict(task_of(name).output_schema)


def _schema(wanted: Any) -> dict[str, Any]:
    return msgspec.json.schema(wanted, schema_hook=media_schema)


def _takes_further_parts(signature: CallSignature, parts: Mapping[str, Any]) -> bool:
    return any(part in signature.parameters for part in parts)
