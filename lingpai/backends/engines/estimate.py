"""How many tokens a text has, estimated: for models that do not say.

The rule, the same everywhere and for ever, so that usage of two days can be compared:

- a Chinese, Japanese or Korean character is one token
- a word (letters, digits, underscores) is one token per six characters begun
- any other visible character is one token; blanks are none

Real tokenizers differ by some tens of per cent either way. Answers carry ``"estimated": true`` beside such counts.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

CHARACTERS_PER_TOKEN: Final = 6
TOKENS_PER_MESSAGE: Final = 3
"""What a chat template adds around each message: role and separators."""

_CJK: Final = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
_WORD: Final = re.compile(r"\w+")
_MARK: Final = re.compile(r"[^\w\s]")


def estimate_tokens(text: str) -> int:
    """The number of tokens in `text` by the rule above; 0 for an empty one."""
    rest, characters = _CJK.subn(" ", text)
    words = sum(-(-len(word) // CHARACTERS_PER_TOKEN) for word in _WORD.findall(rest))
    return characters + words + len(_MARK.findall(rest))


def estimate_texts(texts: Iterable[str]) -> int:
    """The sum over `texts`."""
    return sum(map(estimate_tokens, texts))


def strings_in(value: Any) -> Iterable[str]:
    """Every string inside a JSON value, keys excluded. Data URLs are media, not text, and are left out."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
