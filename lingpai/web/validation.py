"""What pydantic found wrong with a request, in our words: which field, what is wrong, what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from lingpai.errors import LingpaiError

_PLACES = frozenset({"body", "query", "path", "header", "cookie"})


def describe_validation_error(exc: RequestValidationError, *, content_type: str | None) -> LingpaiError:
    """The refusal for the first of the errors. Never repeats what the caller sent, which may be a secret."""
    error: Mapping[str, Any] = exc.errors()[0]
    location = tuple(error["loc"])
    if error["type"] == "json_invalid":
        return _invalid_json(error)
    if location == ("body",):
        return _invalid_body(error, content_type)
    param = _dotted(location)
    return LingpaiError("invalid_request", _sentence(error, param), param=param)


def _invalid_json(error: Mapping[str, Any]) -> LingpaiError:
    position = error["loc"][-1]
    return LingpaiError(
        "invalid_json", f"The body is not JSON: {error['ctx']['error']} at character {position}."
    )


def _invalid_body(error: Mapping[str, Any], content_type: str | None) -> LingpaiError:
    if error["type"] == "missing":
        return LingpaiError("invalid_request", "The body is empty. Send a JSON object.")
    if not _is_json(content_type):
        return LingpaiError(
            "unsupported_media_type", "The body must be JSON. Send it with `Content-Type: application/json`."
        )
    if error["type"] == "value_error":  # a rule about the body as a whole
        return LingpaiError("invalid_request", str(error["ctx"]["error"]))
    return LingpaiError("invalid_request", "The body must be a JSON object.")


def _is_json(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _dotted(location: Sequence[str | int]) -> str:
    parts = location[1:] if location[0] in _PLACES else location
    return ".".join(str(part) for part in parts)


def _sentence(error: Mapping[str, Any], param: str) -> str:
    match error["type"]:
        case "missing":
            return f"`{param}` is missing."
        case "extra_forbidden":
            return f"There is no field `{param}` here. Remove it, or look up its name in `/openapi.json`."
        case _:
            return f"`{param}`: {error['msg'].removeprefix('Value error, ')}."
