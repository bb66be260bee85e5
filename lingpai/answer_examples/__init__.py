"""What answers look like, for the OpenAPI document. A test compares each with what a real server answers.

No credential here is whole, so that no scanner takes the document for a leak.
"""

from typing import Any, Final

from lingpai.answer_examples.identity import IDENTITY
from lingpai.answer_examples.operations import OF_OPERATION
from lingpai.answer_examples.reports import REPORTS
from lingpai.answer_examples.story import Fields
from lingpai.answer_examples.texts import OF_TEXT

_OF_SCHEMA: Final = {**IDENTITY, **REPORTS}
"""By the name of the answer's schema. Pages are made of what they list."""


def add_answer_examples(document: Fields) -> None:
    """Give each answer of a success in an OpenAPI document its example, unless it has one.

    Afterwards, because FastAPI leaves out of an example whatever is null. Answers of other types than JSON are added where it
    does not know of them.
    """
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    _add_examples(f"{method.upper()} {path}", answer)


def _add_examples(operation: str, answer: Fields) -> None:
    content = answer.get("content", {}).get("application/json")
    if content is not None and "example" not in content:
        example = _example(operation, content.get("schema", {}))
        if example is not None:
            content["example"] = example
    for media_type, text in OF_TEXT.get(operation, {}).items():
        answer.setdefault("content", {}).setdefault(media_type, {})["example"] = text


def _example(operation: str, schema: Fields) -> Any:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name.startswith("Page_"):
        item = name.removeprefix("Page_").removesuffix("_")
        return {"data": [_OF_SCHEMA[item]], "next_cursor": None}
    return _OF_SCHEMA.get(name, OF_OPERATION.get(operation))
