"""What models for reading text return: answers, gaps filled, spans found, texts put in order, rows judged."""

from collections.abc import Mapping
from typing import Any, Final

from lingpai.backends.engines.values import ResultError, is_number, numbers, plain, records

_TEXT_NAMES: Final = ("text", "generated_text", "answer", "summary_text", "translation_text")


def text(value: Any, given: Any) -> dict[str, Any]:  # noqa: ARG001  every task's output has this form
    """``{"text"}`` from a string or an object with one, under the names that Hugging Face's pipelines use."""
    return {"text": find_text(value, "a model for this task returns str, or a dict with `text`.")}


def find_text(value: Any, wanted: str) -> str:
    """The text in what a function returned. Raises ResultError saying what was `wanted`."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = next((value[name] for name in _TEXT_NAMES if name in value), value)
    if not isinstance(value, str):
        raise ResultError(f"returned {type(value).__name__}; {wanted}")
    return value


def answer(value: Any, given: Any) -> list[dict[str, Any]]:
    """Answers to a question, the best first: ``[{"answer", "score"?, "start"?, "end"?}]``.

    From one string, one such object, or a list of either.
    """
    del given
    wanted = 'an answer is str or {"answer", "score", "start", "end"}, or a list of them.'
    items = [value] if isinstance(value, str) else records(value)
    if items is None:
        raise ResultError(f"returned {type(value).__name__}; {wanted}")
    found = [{"answer": item} if isinstance(item, str) else item for item in items]
    return _by_score(
        [_fields(item, wanted, text_=("answer",), numbers_=("score", "start", "end")) for item in found]
    )


def fillings(value: Any, given: Any) -> list[dict[str, Any]]:
    """What fits a gap, the best first: ``[{"token", "score", "sequence"?}]``, also from ``{token: score}``."""
    del given
    wanted = 'fill-mask returns a list of {"token", "score", "sequence"} or {token: score}.'
    if isinstance(value, Mapping) and "score" not in value:
        value = [{"token": token, "score": score} for token, score in value.items()]
    items = records(value)
    if items is None:
        raise ResultError(f"returned {type(value).__name__}; {wanted}")
    found = [_renamed(item, "token", ("token_str",)) for item in items]
    return _by_score(
        [
            _fields(item, wanted, text_=("token", "sequence"), numbers_=("score",), needs=("token", "score"))
            for item in found
        ]
    )


def spans(value: Any, given: Any) -> list[dict[str, Any]]:
    """Parts of a text with their labels: ``[{"label", "text", "start", "end", "score"?}]``, in the text's order.

    From such a list, Hugging Face's (``entity_group``, ``word``), or tuples ``(start, end, label)``. Positions count
    characters; `text` is cut out of the input when it is not told.
    """
    items = records(value)
    if items is None:
        raise ResultError(f"returned {type(value).__name__}; {_SPANS_WANTED}")
    found = [_span(item, _input_text(given)) for item in items]
    return sorted(found, key=lambda item: item.get("start", 0))


_SPANS_WANTED: Final = (
    'token-classification returns a list of {"label", "start", "end", "score"} or (start, end, label).'
)


def _span(item: Any, source: str) -> dict[str, Any]:
    if isinstance(item, list | tuple) and len(item) in (3, 4):
        item = dict(zip(("start", "end", "label", "score"), item, strict=False))
    item = _renamed(item, "label", ("entity_group", "entity"))
    item = _renamed(item, "text", ("word",))
    found = _fields(
        item, _SPANS_WANTED, text_=("label", "text"), numbers_=("start", "end", "score"), needs=("label",)
    )
    start, end = found.get("start"), found.get("end")
    if "text" not in found and isinstance(start, int) and isinstance(end, int):
        found["text"] = source[start:end]
    return found


def ranks(value: Any, given: Any) -> list[dict[str, Any]]:
    """Documents by how well they fit: ``[{"index", "score"}]``, the best first.

    From one score per document, in their order, or a list of ``{"index", "score"}`` (also ``relevance_score``).
    Raises ResultError when there are not as many scores as documents, or an index is none of theirs.
    """
    count = len(given["documents"])
    scores = numbers(value)
    if scores is None:
        return _by_score([_rank(item, count) for item in records(value) or [None]])
    if len(scores) != count:
        raise ResultError(f"returned {len(scores)} scores for {count} documents.")
    return _by_score([{"index": index, "score": score} for index, score in enumerate(scores)])


def _rank(item: Any, count: int) -> dict[str, Any]:
    wanted = 'rerank returns one score per document, or a list of {"index", "score"}.'
    item = _renamed(item, "score", ("relevance_score",))
    found = _fields(item, wanted, text_=(), numbers_=("index", "score"), needs=("index", "score"))
    if not isinstance(found["index"], int) or not 0 <= found["index"] < count:
        raise ResultError(f"returned the index {found['index']} for {count} documents.")
    return found


def rows(value: Any, given: Any) -> list[Any]:
    """One value or object per row of the input, from a list, an array or a data frame."""
    found = records(value) if not isinstance(value, str) else None
    if found is None:
        raise ResultError(
            f"returned {type(value).__name__}; a tabular model returns one value or object per row."
        )
    count = len(given) if isinstance(given, list) else 1
    if len(found) != count:
        raise ResultError(f"returned {len(found)} results for {count} rows.")
    return [plain(item) for item in found]


def anything(value: Any, given: Any) -> Any:  # noqa: ARG001  every task's output has this form
    """What the function returned, as JSON can hold it."""
    return value


def _input_text(given: Any) -> str:
    value = given.get("text") if isinstance(given, Mapping) else given
    return value if isinstance(value, str) else ""


def _renamed(item: Any, name: str, others: tuple[str, ...]) -> Any:
    if not isinstance(item, Mapping):
        return item
    other = next((other for other in others if other in item), None)
    if other is None:
        return item
    return {name: item[other], **{key: value for key, value in item.items() if key not in (name, *others)}}


def _fields(
    item: Any,
    wanted: str,
    *,
    text_: tuple[str, ...],
    numbers_: tuple[str, ...],
    needs: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """The object's fields, plain, those that are told of the right kind; `needs` (else the texts) must be there."""
    if not isinstance(item, Mapping):
        raise ResultError(f"returned {item!r:.80}; {wanted}")
    found = {key: plain(value) for key, value in item.items() if value is not None}
    missing = [name for name in (text_ if needs is None else needs) if name not in found]
    unfit = [name for name in text_ if not isinstance(found.get(name, ""), str)]
    unfit += [name for name in numbers_ if not is_number(found.get(name, 0))]
    if missing or unfit:
        raise ResultError(f"returned {item!r:.80} (see `{(missing + unfit)[0]}`); {wanted}")
    return found


def _by_score(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: -item.get("score", 0))
