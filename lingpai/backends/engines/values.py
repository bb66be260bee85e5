"""From what authors return to JSON, without importing what they use."""

from collections.abc import Mapping
from typing import Any

import msgspec

from lingpai.media import File, Image


class ResultError(Exception):
    """The author's function returned something that its task does not allow; the message says what."""


def plain(value: Any) -> Any:
    """`value`, or its Python equivalent when it is an array or a scalar of NumPy and its kin (``tolist``)."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def encode(value: Any) -> bytes:
    """`value` as JSON; dataclasses, Structs, arrays and NumPy scalars included; files are data URLs.

    Raises ResultError.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ResultError(f"returned something JSON cannot hold: {error}") from error


def labels(value: Any) -> list[dict[str, Any]]:
    """A classification as ``[{"label", "score"}]``, the best score first.

    From such a list, one such object, ``{label: score}``, or ``{"labels": […], "scores": […]}`` as Hugging Face's
    zero-shot pipeline returns it. Raises ResultError for anything else.
    """
    value = plain(value)
    if isinstance(value, Mapping) and isinstance(plain(value.get("labels")), list | tuple):
        value = _paired(value)
    if isinstance(value, Mapping) and not {"label", "score"} <= set(value):
        value = [{"label": label, "score": score} for label, score in value.items()]
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple):
        raise ResultError(f"returned {type(value).__name__}; {_LABELS_WANTED}")
    if len(items) == 1 and isinstance(items[0], list):
        items = items[0]  # a pipeline's batch of one
    return sorted((_label(item) for item in items), key=lambda item: -item["score"])


_LABELS_WANTED = 'a classifier returns a list of {"label", "score"} or {label: score}.'


def _paired(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    names, scores = list(plain(value["labels"])), plain(value.get("scores"))
    if not isinstance(scores, list | tuple) or len(scores) != len(names):
        raise ResultError(f"returned `labels` without as many `scores`; {_LABELS_WANTED}")
    return [{"label": name, "score": score} for name, score in zip(names, scores, strict=True)]


def _label(item: Any) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise ResultError(f"returned a list of {type(item).__name__}; {_LABELS_WANTED}")
    label, score = plain(item.get("label")), plain(item.get("score"))
    if label is None or not is_number(score):
        raise ResultError(f"returned {item!r:.80}; {_LABELS_WANTED}")
    return {**item, "label": str(label), "score": score}


def numbers(value: Any) -> list[float] | None:
    """`value` as a list of numbers; None when it is something else."""
    items = plain(value)
    if not isinstance(items, list | tuple):
        return None
    found = [plain(item) for item in items]
    return found if all(is_number(item) for item in found) else None


def records(value: Any) -> list[Any] | None:
    """`value` as a list: an array's or a tuple's items, a data frame's rows as objects, one object as a list of one.

    None when it is nothing of the kind.
    """
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        value = value.to_dict("records")
    value = plain(value)
    if isinstance(value, Mapping):
        return [value]
    return list(value) if isinstance(value, list | tuple) else None


def vectors(value: Any, *, expected: int) -> list[list[float]]:
    """`expected` vectors from lists or an array. Raises ResultError when there are more, fewer or none."""
    rows = plain(value)
    if not isinstance(rows, list | tuple):
        raise ResultError(f"returned {type(value).__name__}; an embedding model returns one vector per text.")
    found = [plain(row) for row in rows]
    if len(found) != expected:
        raise ResultError(f"returned {len(found)} vectors for {expected} texts.")
    if not all(isinstance(row, list | tuple) and row and is_number(plain(row[0])) for row in found):
        raise ResultError("returned something other than a list of vectors of numbers.")
    return [list(row) for row in found]


def is_number(value: Any) -> bool:
    """Whether `value` is an int or a float; booleans are neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_json(value: Any) -> Any:
    if isinstance(value, File):
        return value.data_url()
    if callable(getattr(value, "getbands", None)):  # Pillow's images, without importing Pillow
        return Image.from_pil(value).data_url()
    converted = plain(value)
    if converted is value:
        raise TypeError(f"{type(value).__name__} objects")
    return converted


_encoder = msgspec.json.Encoder(enc_hook=_to_json)
