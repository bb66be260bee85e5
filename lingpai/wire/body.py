"""Reading a JSON body so that a wrong one is answered with what is wrong, where, and what to do."""

import re
from typing import Final, TypeVar

import msgspec

from lingpai.errors import LingpaiError

T = TypeVar("T")

MAX_DEPTH: Final = 64
"""How deep objects and arrays may nest. Real requests stay under 20; some backends recurse for each level."""

_AT_PATH = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)


def read_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode `body` with `decoder`.

    Raises LingpaiError `invalid_json` when the body is empty, not UTF-8, not JSON or nested too deeply, and
    `invalid_request` with `param` when a field has a wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except msgspec.DecodeError as error:
        raise _not_json(body, str(error)) from None
    except RecursionError:
        raise _too_deep() from None


def check_text(body: bytes) -> None:
    """Refuse what a lenient decoder skips over: bytes that are not UTF-8, and nesting past `MAX_DEPTH`."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise LingpaiError(
                "invalid_json", f"The body is not valid UTF-8 (byte {error.start}). Encode the JSON as UTF-8."
            ) from None
    # A cheap upper bound first: only a body with this many brackets can be that deep.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _too_deep()


# Possessive, so that a string without an end is passed over once and never tried again from its middle.
_BRACKETS_OUTSIDE_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|([\]}])', re.DOTALL)


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKETS_OUTSIDE_STRINGS.finditer(body):
        if match[1]:
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    break
        elif match[2]:
            depth -= 1
    return deepest


def _too_deep() -> LingpaiError:
    return LingpaiError("invalid_json", f"The JSON is nested more than {MAX_DEPTH} levels deep. Flatten it.")


def _not_json(body: bytes, detail: str) -> LingpaiError:
    if not body.strip():
        return LingpaiError(
            "invalid_json", 'The body is empty. Send a JSON object such as {"model": "…", …}.'
        )
    return LingpaiError("invalid_json", f"The body is not valid JSON: {detail}.")


def _wrong_field(detail: str) -> LingpaiError:
    """Turn msgspec's "Expected `str`, got `int` - at `$.model`" into a sentence with the field's name."""
    match = _AT_PATH.match(detail)
    what, path = (match["what"], match["path"]) if match else (detail, None)
    if not path or path == "$":
        return LingpaiError("invalid_request", f"The body must be a JSON object: {_lower_first(what)}.")
    param = path.removeprefix("$").lstrip(".")
    return LingpaiError("invalid_request", f"`{param}`: {_lower_first(what)}.", param=param)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
