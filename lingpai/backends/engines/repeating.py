"""Whether what an exception says repeats what callers sent. It may, and must not stand in a log then.

Sent are texts, names in objects (but for those of `_NAMES_OF_THE_PROTOCOL`), numbers of at least `DIGITS` digits, and
bytes and files, base64 or not, where they are text; of pictures, sounds and films only the first `_BEGINNING`
characters. They are compared with what is said by letters and digits alone, so that quotes, escapes and upper case hide
nothing. A run of `RUN` bytes that both have is a repetition (four characters of Chinese), as is a shorter text of at
least `_SHORTEST` bytes that is repeated whole. Shorter ones are not found, nor is what was computed from what was sent,
what came from an address, or the numbers in an array.

Other calls wait meanwhile. So what is longer than `Effort` allows counts as a repetition, and nobody looks.
"""

import datetime
import decimal
import enum
import re
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lingpai.media import File
from lingpai.wire.media import decode_base64, is_data_url, read_data_url, sniff

RUN: Final = 12
DIGITS: Final = 6
_SHORTEST: Final = 4
"""Bytes of a text below which it is found anywhere."""
_MOST_SAID: Final = 4000
"""Characters that an exception and its causes may say."""
_BEGINNING: Final = 1000
"""Characters of a picture that are looked at: who quotes one begins at its beginning."""
_MOST_PLACES: Final = 2000
"""Places where something half as long as a run is repeated; with more, a run is likely enough."""
_COST_OF_A_VALUE: Final = 50
"""What it takes to look at one more value, in characters."""
_COST_OF_WHAT_IS_SAID: Final = 10
"""What it takes to look up one character of it."""
_HALF: Final = RUN // 2

_NOT_SAID: Final = re.compile(r"[\W_]+")
_NOT_SAID_IN_ASCII: Final = bytes(code for code in range(128) if not chr(code).isalnum())
_ESCAPES: Final = re.compile(r"(?:\\+x[0-9a-f]{2})+|(?:\\+u[0-9a-f]{4})+|\\+U[0-9a-f]{8}|\\+[nrt]")
_BASE64: Final = re.compile(r"[\w+/\r\n-]{16,}={0,2}\s*", re.ASCII)
_SIMPLE: Final = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
"""Types of values that `msgspec` makes of texts."""

_NAMES_OF_THE_PROTOCOL: Final = frozenset({
    "arguments", "audio", "b64_json", "base64", "best_of", "candidate_labels", "content", "context", "data",
    "dimensions", "documents", "encoding_format", "file", "format", "function", "image", "image_url", "input",
    "input_audio", "input_data", "language", "max_completion_tokens", "max_tokens", "media_type", "messages", "model",
    "name", "parameters", "prompt", "query", "question", "response_format", "role", "rows", "seed", "size", "stop",
    "stream", "stream_options", "suffix", "temperature", "text", "tool_call_id", "tool_calls", "tool_choice", "tools",
    "top_p", "type", "user", "voice",
})  # fmt: skip
"""Names that do not tell who wrote them."""
_WORDS_OF_THE_PROTOCOL: Final = frozenset({
    "assistant", "developer", "file", "function", "image_url", "input_audio", "system", "text", "tool", "user",
})  # fmt: skip
"""What stands in `role` and `type`."""


class _TooMuchError(Exception):
    """Nobody looks at so much."""


@dataclass(slots=True)
class Effort:
    """How many characters may be looked at for one failure, or for all failures of a batch together."""

    left: int = 200_000

    def spend(self, characters: int) -> bool:
        """Whether there are as many left. Once there are not, there are none."""
        self.left -= characters
        return self.left >= 0

    def spend_on_reading(self, body: bytes) -> bool:
        """Whether `body` may be read once more: reading is quick, but not when it has many values."""
        return self.spend(len(body) // 20) and self.spend(4 * sum(map(body.count, (b",", b"[", b"{"))))


@dataclass(slots=True)
class Sent:
    """What callers sent: fields of requests, or payloads made of them. `known_names` are the author's own."""

    values: Any
    known_names: Collection[str] = ()
    effort: Effort = field(default_factory=Effort)

    def is_repeated_in(self, messages: Sequence[str]) -> bool:
        """Whether one of `messages` repeats something of it, or may do so: if there is too much to look at."""
        length = sum(map(len, messages))
        if length > _MOST_SAID:
            return True
        try:
            self._spend(length * _COST_OF_WHAT_IS_SAID)
            sent = {_bare(text) for text in self._texts()}
        except (_TooMuchError, AttributeError, RuntimeError):
            return True  # the author's code may have made anything of it, and may be changing it now
        said = {_bare(variant) for message in messages for variant in (message, _unescaped(message))}
        return _have_in_common(said, sent)

    def _texts(self) -> Iterable[str]:
        following = [self.values]
        while following:
            value = following.pop()
            if isinstance(value, dict):
                following += self._members(value)
            elif isinstance(value, list | tuple | set | frozenset):
                self._spend(len(value) * _COST_OF_A_VALUE)
                following += value
            elif (names := _field_names(value)) is not None:
                following += self._members({name: getattr(value, name, None) for name in names})
            else:
                yield from self._texts_in(value)

    def _members(self, value: dict[Any, Any]) -> Iterable[Any]:
        self._spend(2 * len(value) * _COST_OF_A_VALUE)
        for name, item in value.items():
            if name not in _NAMES_OF_THE_PROTOCOL and name not in self.known_names:
                yield name
            if not (name in ("role", "type") and isinstance(item, str) and item in _WORDS_OF_THE_PROTOCOL):
                yield item

    def _texts_in(self, value: Any) -> Iterable[str]:
        if isinstance(value, str):
            yield from self._texts_in_text(value)
        elif isinstance(value, bytes | bytearray | memoryview):
            yield self._text_of(value)
        elif isinstance(value, File):
            yield from (value.name, self._text_of(value.bytes))
        elif isinstance(value, enum.Enum):
            yield str(value.value)
        elif isinstance(value, int | float):
            yield from _texts_of_number(value)
        elif isinstance(value, _SIMPLE):
            yield str(value)

    def _texts_in_text(self, text: str) -> Iterable[str]:
        if len(text) > _BEGINNING and _is_media(_decoded(text[:200])):
            text = text[:_BEGINNING]
        self._spend(len(text) if text.isascii() else 3 * len(text))
        yield text
        if is_data_url(text) or _BASE64.fullmatch(text):
            yield self._text_of(_decoded(text))

    def _text_of(self, data: bytes | bytearray | memoryview) -> str:
        if _is_media(bytes(data[:64])):
            data = data[:_BEGINNING]
        self._spend(len(data))
        return bytes(data).decode(errors="ignore")

    def _spend(self, characters: int) -> None:
        if not self.effort.spend(characters):
            raise _TooMuchError


def _field_names(value: Any) -> Iterable[str] | None:
    """Those of an object that `msgspec` makes of a JSON object."""
    kind = type(value)
    for declared in ("__struct_fields__", "__dataclass_fields__"):
        if hasattr(kind, declared):
            return tuple(getattr(kind, declared))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(each.name for each in attributes)


def _texts_of_number(value: float) -> Iterable[str]:
    if isinstance(value, int) and value.bit_length() > 1000:
        raise _TooMuchError  # JSON has none such, and Python writes none of so many digits
    is_whole = isinstance(value, int) or (value.is_integer() and abs(value) < 1e16)
    text = str(int(value)) if is_whole else repr(value)
    if len(text) >= DIGITS and sum(map(str.isdigit, text)) >= DIGITS:
        yield text


def _decoded(text: str) -> bytes:
    """The bytes in a data URL or in base64, from its beginning; empty when it is neither."""
    try:
        if is_data_url(text):
            start, comma, rest = text.partition(",")
            return read_data_url(start + comma + rest[: len(rest) // 4 * 4])[0]
        return decode_base64(text[: len(text) // 4 * 4])
    except ValueError:
        return b""


def _is_media(head: bytes) -> bool:
    """Whether `head` begins a picture, a sound or a film, and no text that begins with the same letters."""
    return sniff(head) is not None and (b"\0" in head or b"\xff" in head)


def _unescaped(text: str) -> str:
    """`text` without the escapes of `repr` and JSON."""
    return _ESCAPES.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    codes = escape[0].replace("\\", "")
    if codes[0] == "x":  # of bytes in UTF-8, or of characters
        data = bytes.fromhex(codes.replace("x", ""))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")
    if codes[0] == "u":
        return bytes.fromhex(codes.replace("u", "")).decode("utf-16-be", errors="replace")
    return bytes.fromhex(codes[1:]).decode("utf-32-be", errors="replace") if codes[0] == "U" else " "


def _bare(text: str) -> bytes:
    folded = text.casefold()
    if folded.isascii():  # much quicker
        return folded.encode().translate(None, _NOT_SAID_IN_ASCII)
    return _NOT_SAID.sub("", folded).encode(errors="replace")


def _have_in_common(said: set[bytes], sent: set[bytes]) -> bool:
    lengths = {len(text) for text in sent if _SHORTEST <= len(text) < RUN}
    if any(not sent.isdisjoint(_parts(said, length)) for length in lengths):
        return True
    together = b"\0".join(sent)
    if any(_SHORTEST <= len(text) < RUN and text in together for text in said):
        return True
    return _have_a_run_in_common(said, b"\0".join(text for text in sent if len(text) >= RUN))


def _have_a_run_in_common(said: set[bytes], sent: bytes) -> bool:
    # Of any run, one of the halves that lie side by side in `sent` is whole: so few places have to be looked at.
    halves = _parts(said, _HALF)
    places = [place for place in range(0, len(sent), _HALF) if sent[place : place + _HALF] in halves]
    if len(places) > _MOST_PLACES:
        return True
    runs = _parts(said, RUN)
    starts = (start for place in places for start in range(max(place - _HALF, 0), place + 1))
    return any(sent[start : start + RUN] in runs for start in starts)


def _parts(texts: Iterable[bytes], length: int) -> set[bytes]:
    return {text[place : place + length] for text in texts for place in range(len(text) - length + 1)}
