"""Sentence embeddings by signed feature hashing, without anything learned.

A text's features are its words, pairs of words, and the pieces of three to five characters of each word; of Chinese,
Japanese and Korean text, where blanks do not part words, its characters, pairs and triples. Each feature is hashed to
a dimension and a sign (Weinberger et al. 2009), weighed by kind and by the logarithm of its count, and the sum
has length one. Texts that share words and stems come out close; meaning beyond that is not seen.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from lingpai.authoring import model

DIMENSIONS: Final = 384

WORD: Final = 1.0
WORD_PAIR: Final = 0.5
PIECE: Final = 0.3
COMMON_WORD: Final = 0.2

_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN: Final = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_IS_CJK: Final = re.compile(rf"[{_CJK}]")
_COMMON: Final = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "do", "for", "from", "has", "have", "he", "her",
    "his", "i", "in", "is", "it", "its", "of", "on", "or", "she", "that", "the", "their", "they", "this", "to",
    "was", "we", "were", "will", "with", "you", "your",
})  # fmt: skip


@model(
    "lingpai/hashing-embedding",
    task="embedding",
    description="Demonstration: sentence embeddings by feature hashing, any language",
)
def hashing_embedding(
    texts: list[str], *, dimensions: Annotated[int, msgspec.Meta(ge=16, le=4096)] = DIMENSIONS
) -> list[list[float]]:
    """One vector of length one per text."""
    return [embed(text, dimensions) for text in texts]


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of one text; a text without a word or sign in it hashes as a whole."""
    vector = [0.0] * dimensions
    counts = Counter(features(text)) or Counter([(text, WORD)])
    for (feature, weight), count in counts.items():
        value = _hashed(feature)
        vector[(value >> 1) % dimensions] += (weight if value & 1 else -weight) * (1 + math.log(count))
    length = math.sqrt(sum(value * value for value in vector))
    # Two features can cancel each other out in every dimension; then only the first unit vector has a direction.
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def features(text: str) -> Iterator[tuple[str, float]]:
    """Every feature of `text` with its weight, as often as it occurs."""
    tokens = _TOKEN.findall(text.casefold())
    for token in tokens:
        yield from _character_features(token) if _IS_CJK.match(token) else _word_features(token)
    for first, second in pairwise(tokens):
        yield f"{first} {second}", WORD_PAIR


def _word_features(word: str) -> Iterator[tuple[str, float]]:
    if word in _COMMON:
        yield word, COMMON_WORD
        return
    yield word, WORD
    bounded = f"<{word}>"
    for size in (3, 4, 5):
        for start in range(len(bounded) - size + 1):
            yield bounded[start : start + size], PIECE


def _character_features(run: str) -> Iterator[tuple[str, float]]:
    for size, weight in ((1, PIECE), (2, WORD), (3, WORD_PAIR)):
        for start in range(len(run) - size + 1):
            yield run[start : start + size], weight


@lru_cache(maxsize=65536)
def _hashed(feature: str) -> int:
    digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
