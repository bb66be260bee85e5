"""Whether a text repeats what callers sent. What an exception says may, and must not stand in a log then.

Texts are compared by their letters and digits alone, so that quotes, escapes and upper case hide nothing. A run of
`RUN` bytes that both have is a repetition (four characters of Chinese), as is a shorter text that is repeated whole.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from lingpai.media import File

RUN: Final = 12
_SHORTEST: Final = 4
"""Bytes of a text below which it is found anywhere."""
_LONGEST: Final = 1_000_000
"""Characters of each text that are looked at: who quotes a picture begins at its beginning."""
_LONGEST_TOGETHER: Final = 4_000_000
"""Characters that are looked at in all; other calls wait meanwhile."""
_MOST_PLACES: Final = 2000
"""Places in what is said that are looked up; of a longer text so many, spread evenly."""

_NOT_SAID: Final = re.compile(r"[\W_]+")
_WORDS_OF_THE_PROTOCOL: Final = frozenset({"model", "role", "type"})
"""Fields that hold no text of the caller's."""


def repeats(said: str, sent: Any) -> bool:
    """Whether `said` repeats a text in `sent`: fields of requests, or payloads made of them."""
    try:
        values = msgspec.to_builtins(sent, enc_hook=_text_of)
    except (TypeError, ValueError, RecursionError):
        return True  # the author's code has made it into something that cannot be compared
    texts = list(_texts_in(values))
    if sum(map(len, texts)) > _LONGEST_TOGETHER:
        return True  # or may do so: nobody looks
    bare = _bare(said)
    return any(_have_in_common(bare, _bare(text)) for text in texts)


def _texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value[:_LONGEST]
        if not value.isascii():
            yield json.dumps(value[:_LONGEST])
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _WORDS_OF_THE_PROTOCOL:
                yield from _texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


def _text_of(value: Any) -> str | None:
    """What `msgspec` shall take for a value that it does not know: a file may be a text."""
    return value.bytes[:_LONGEST].decode(errors="ignore") if isinstance(value, File) else None


def _bare(text: str) -> bytes:
    return _NOT_SAID.sub("", text.casefold()).encode(errors="replace")


def _have_in_common(said: bytes, sent: bytes) -> bool:
    shorter = min(len(said), len(sent))
    if shorter < RUN:
        return shorter >= _SHORTEST and (sent in said or said in sent)
    places = range(0, len(said) - RUN + 1, len(said) // _MOST_PLACES + 1)
    return any(said[place : place + RUN] in sent for place in places)
