"""From what authors return to JSON, without importing what they use."""

from collections.abc import Mapping
from typing import Any

import msgspec


class ResultError(Exception):
    """The author's function returned something that its task does not allow; the message says what."""


def plain(value: Any) -> Any:
    """`value`, or its Python equivalent when it is an array or a scalar of NumPy and its kin (``tolist``)."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def encode(value: Any) -> bytes:
    """`value` as JSON; dataclasses, Structs, arrays and NumPy scalars included. Raises ResultError."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ResultError(f"returned something JSON cannot hold: {error}") from error


def labels(value: Any) -> list[dict[str, Any]]:
    """A classification as ``[{"label", "score"}]``: from such a list, one such object, or ``{label: score}``.

    A mapping comes out with the best score first. Raises ResultError for anything else.
    """
    value = plain(value)
    if isinstance(value, Mapping) and set(value) != {"label", "score"}:
        pairs = [{"label": label, "score": plain(score)} for label, score in value.items()]
        return sorted((_label(pair) for pair in pairs), key=lambda pair: -pair["score"])
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple):
        raise ResultError(f"returned {type(value).__name__}; {_LABELS_WANTED}")
    return [_label(item) for item in items]


_LABELS_WANTED = 'a classifier returns a list of {"label", "score"} or {label: score}.'


def _label(item: Any) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise ResultError(f"returned a list of {type(item).__name__}; {_LABELS_WANTED}")
    label, score = plain(item.get("label")), plain(item.get("score"))
    if label is None or isinstance(score, bool) or not isinstance(score, int | float):
        raise ResultError(f"returned {item!r:.80}; {_LABELS_WANTED}")
    return {**item, "label": str(label), "score": score}


def vectors(value: Any, *, expected: int) -> list[list[float]]:
    """`expected` vectors from lists or an array. Raises ResultError when there are more, fewer or none."""
    rows = plain(value)
    if not isinstance(rows, list | tuple):
        raise ResultError(f"returned {type(value).__name__}; an embedding model returns one vector per text.")
    found = [plain(row) for row in rows]
    if len(found) != expected:
        raise ResultError(f"returned {len(found)} vectors for {expected} texts.")
    if not all(isinstance(row, list | tuple) and row and _is_number(plain(row[0])) for row in found):
        raise ResultError("returned something other than a list of vectors of numbers.")
    return [list(row) for row in found]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_json(value: Any) -> Any:
    converted = plain(value)
    if converted is value:
        raise TypeError(f"{type(value).__name__} objects")
    return converted


_encoder = msgspec.json.Encoder(enc_hook=_to_json)
