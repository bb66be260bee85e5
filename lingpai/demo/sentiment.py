"""Sentiment of Chinese and English text by a lexicon, with negation and intensifiers.

Good and bad words are found and weighed; a negator before one turns it around ("not good", "不好"), an intensifier
makes it count more or less ("very good", "有点慢"). What is left over for `neutral` shrinks as evidence grows, so the
three scores always add up to one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lingpai.authoring import model
from lingpai.demo.sentiment_words import BAD, GOOD, INTENSIFIERS, NEGATORS

NEUTRAL_EVIDENCE: Final = 0.6
"""How much evidence a text must show before it stops being neutral."""

NEGATED: Final = -0.8
"""A negated word is its opposite, a little weaker: "not bad" is good, but not as good as "good"."""

REACH: Final = 3
"""How many words a negator or an intensifier looks ahead."""

_CHINESE: Final = re.compile("[\u4e00-\u9fff]")
_TOKEN: Final = re.compile("[\u4e00-\u9fff]+|[a-z]+(?:'[a-z]+)?|[.,;:!?。，；：！？]")
_LONGEST: Final = max(len(word) for word in (*GOOD, *BAD, *INTENSIFIERS, *NEGATORS) if _CHINESE.match(word))
_CHINESE_WORDS: Final = frozenset(
    word for word in (*GOOD, *BAD, *INTENSIFIERS, *NEGATORS) if _CHINESE.match(word)
)


@model(
    "lingpai/sentiment",
    task="text-classification",
    description="Demonstration: sentiment of Chinese and English text, by a small lexicon",
)
def sentiment(text: str) -> list[dict[str, Any]]:
    """`positive`, `negative` and `neutral` with scores that add up to one, the highest first."""
    good, bad = evidence(text)
    total = good + bad + NEUTRAL_EVIDENCE
    positive, negative = round(good / total, 6), round(bad / total, 6)
    scores = {"positive": positive, "negative": negative, "neutral": round(1 - positive - negative, 6)}
    return [
        {"label": label, "score": score}
        for label, score in sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    ]


def evidence(text: str) -> tuple[float, float]:
    """How much speaks for good and for bad; neither is negative."""
    reading = _Reading()
    for word in words(text.lower().replace("’", "'")):
        reading.take(word)
    return reading.good, reading.bad


@dataclass(slots=True)
class _Reading:
    good: float = 0.0
    bad: float = 0.0
    _factor: float = 1.0
    _reach: int = 0

    def take(self, word: str) -> None:
        if word in NEGATORS or word.endswith("n't"):
            self._modify(NEGATED)
        elif word in INTENSIFIERS:
            self._modify(INTENSIFIERS[word])
        elif word in GOOD or word in BAD:
            self._weigh(GOOD.get(word, 0.0) - BAD.get(word, 0.0))
        else:
            self._reach -= 1
            if self._reach <= 0 or not word[0].isalpha():
                self._forget()

    def _modify(self, factor: float) -> None:
        self._factor *= factor
        self._reach = REACH

    def _weigh(self, weight: float) -> None:
        weight *= self._factor
        self.good += max(weight, 0.0)
        self.bad += max(-weight, 0.0)
        self._forget()

    def _forget(self) -> None:
        self._factor, self._reach = 1.0, 0


def words(text: str) -> Iterator[str]:
    """English words as they stand; Chinese by the longest word of the lexicon that fits, else by character."""
    for token in _TOKEN.findall(text):
        if _CHINESE.match(token):
            yield from _chinese_words(token)
        else:
            yield token


def _chinese_words(run: str) -> Iterator[str]:
    start = 0
    while start < len(run):
        lengths = range(min(_LONGEST, len(run) - start), 1, -1)
        length = next((n for n in lengths if run[start : start + n] in _CHINESE_WORDS), 1)
        yield run[start : start + length]
        start += length
