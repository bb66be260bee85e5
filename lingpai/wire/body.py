"""Reading a JSON body so that a wrong one is answered with what is wrong, where, and what to do."""

import re
from typing import Any, Final, TypeVar

import msgspec

from lingpai.errors import LingpaiError

T = TypeVar("T")

ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""Decodes an object, and leaves its values as the bytes that they are."""

MAX_DEPTH: Final = 64
"""How deep objects and arrays may nest. Real requests stay under 20; some backends recurse for each level."""

SMALL_BODY_BYTES: Final = 64 * 1024
"""Up to here a body is read in no time whatever it holds, so its structure is not counted."""

MAX_STRUCTURE: Final = 1_000_000
"""How many `[`, `{` and `,` a body may have: about as many values are made of it, on the event loop, so that a body of
nothing else would hold up every other caller for seconds. A comma is at least a token, in text too, and models read no
more than about a million tokens."""

MAX_BRACKETS: Final = 200_000
"""How many `[` and `{` of these: each costs more than a comma, and is looked at to find how deep it nests."""

MAX_NAMES: Final = 200_000
"""How many names the objects of a body may have, all together: each is made a string, and looked up."""

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
    """Refuse what a decoder skips over or takes too long for.

    Raises LingpaiError `invalid_json` for bytes that are not UTF-8, for nesting past `MAX_DEPTH`, and for a body over
    `SMALL_BODY_BYTES` with more than `MAX_STRUCTURE` brackets and commas, `MAX_BRACKETS` brackets or `MAX_NAMES` names.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise LingpaiError(
                "invalid_json", f"The body is not valid UTF-8 (byte {error.start}). Encode the JSON as UTF-8."
            ) from None
    brackets = body.count(b"[") + body.count(b"{")
    if len(body) > SMALL_BODY_BYTES:
        _check_size_of_structure(brackets, body.count(b","))
        _check_number_of_names(body)
    # A cheap upper bound first: only a body with this many brackets can be that deep.
    if brackets > MAX_DEPTH and _is_deep(body):
        raise _too_deep()


def _check_size_of_structure(brackets: int, commas: int) -> None:
    if brackets > MAX_BRACKETS or brackets + commas > MAX_STRUCTURE:
        raise LingpaiError(
            "invalid_json",
            f"The JSON has {brackets} opening brackets and {commas} commas; at most {MAX_BRACKETS} brackets, and "
            f"{MAX_STRUCTURE} of both, can be read. Send less in one request.",
        )


_BEFORE_COLONS: Final = (b'":', b" :", b"\n:", b"\t:", b"\r:")
"""What stands behind a name; seldom found in texts."""


def _check_number_of_names(body: bytes) -> None:
    if body.count(b":") > MAX_NAMES and (names := sum(map(body.count, _BEFORE_COLONS))) > MAX_NAMES:
        raise LingpaiError(
            "invalid_json",
            f"The JSON has {names} names; at most {MAX_NAMES} can be read. Send less in one request.",
        )


_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STRING_OR_BRACKET: Final = re.compile(rb'"[^"]*"?|([\[{])|([\]}])')


def _is_deep(body: bytes) -> bool:
    """Whether brackets outside strings nest deeper than `MAX_DEPTH`: a few looks per opening bracket."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(_skeleton(body)):
        if match[1]:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif match[2]:
            depth -= 1
            if depth < 0:
                return False  # closes what was never opened: the decoder stops here too
    return False


def _skeleton(body: bytes) -> bytes:
    """The brackets of `body` and the quotes between them. All C loops, so a million strings cost like one."""
    unescaped = body.replace(b"\\\\", b"").replace(
        b'\\"', b""
    )  # in this order, so that a quote after an escaped backslash stays
    # Two quotes side by side end a string and begin one, or the reverse; without them all else is where it was.
    return unescaped.translate(None, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")


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
