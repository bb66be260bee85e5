"""ELIZA, after J. Weizenbaum, Communications of the ACM 9 (1966), pages 36 to 45.

The machine is his; the script (`eliza_script.py`) is worded anew. For each sentence of the user:

1. words are substituted ("i'm" by "i am") and keywords found; the one with the highest rank comes first
2. the sentence is taken apart by the keyword's decomposition rules, first to last
3. the first rule that fits gives an answer, put together from its parts with "I" and "you" exchanged; a rule's
   answers take turns
4. some keywords also put an answer by for later; it is used when a sentence has no keyword at all

The original kept its state between lines of a terminal. Here a call brings the whole conversation along, so the
user's messages are played again from the first: the same conversation always gets the same answer.
"""

import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from lingpai.authoring import Message, model
from lingpai.demo.eliza_script import (
    EXCHANGES,
    FAMILIES,
    KEYWORDS,
    NOTHING_FOUND,
    SUBSTITUTIONS,
    Keyword,
    Rule,
)

MESSAGES_HEARD: Final = 50
SENTENCES_HEARD: Final = 20
WORDS_HEARD: Final = 60
"""How many of the user's last messages, of their sentences and of those words are listened to: patient, but not for ever."""

_SENTENCE_END: Final = re.compile(r"[.,;:!?。，；：！？\n]+|\bbut\b")
_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

Words = tuple[str, ...]


@model(
    "lingpai/eliza", task="chat", description="Demonstration: ELIZA, the first chat program (Weizenbaum 1966)"
)
async def eliza(
    messages: list[Message], *, max_tokens: int | None = None
) -> AsyncGenerator[str | dict[str, Any]]:
    """Answer as ELIZA does, word by word; at most `max_tokens` words."""
    answer = reply_to([message.text for message in messages if message.role == "user"])
    words = re.findall(r"\s*\S+", answer)
    for word in words[:max_tokens]:
        yield word
    if max_tokens is not None and len(words) > max_tokens:
        yield {"finish_reason": "length"}


def reply_to(said: Sequence[str]) -> str:
    """ELIZA's answer to the last of the user's messages, given the earlier ones; a greeting to nobody."""
    conversation = Conversation()
    answer = "Good day. What would you like to talk about?"
    for text in said[-MESSAGES_HEARD:]:
        answer = conversation.answer(text)
    return answer


class Conversation:
    """One conversation as far as it has been heard."""

    def __init__(self) -> None:
        self._turns: dict[int, int] = {}
        self._memory: deque[str] = deque()

    def answer(self, text: str) -> str:
        """The answer to one message; it moves the conversation on."""
        for sentence in _SENTENCE_END.split(text.lower().replace("’", "'"))[:SENTENCES_HEARD]:
            words = substitute(_WORD.findall(sentence)[:WORDS_HEARD])
            keywords = sorted((KEYWORDS[word] for word in words if word in KEYWORDS), key=_rank)
            answers = (self._by_keyword(keyword, words) for keyword in dict.fromkeys(keywords))
            found = next((answer for answer in answers if answer is not None), None)
            if found is not None:
                return found
        if self._memory:
            return self._memory.popleft()
        return self._take_turn(NOTHING_FOUND)

    def _by_keyword(self, keyword: Keyword, words: Words) -> str | None:
        for rule in keyword.memory:
            parts = match(rule.pattern, words)
            if parts is not None:
                self._memory.append(assemble(self._take_turn(rule.answers), parts))
        for rule in keyword.rules:
            parts = match(rule.pattern, words)
            if parts is not None:
                return self._follow(rule, parts, words)
        return None

    def _follow(self, rule: Rule, parts: Sequence[Words], words: Words) -> str | None:
        answer = self._take_turn(rule.answers)
        if answer.startswith("="):  # "treat it as if this keyword had been said"
            return self._by_keyword(KEYWORDS[answer[1:]], words)
        return assemble(answer, parts)

    def _take_turn(self, answers: tuple[str, ...]) -> str:
        turn = self._turns.get(id(answers), 0)
        self._turns[id(answers)] = turn + 1
        return answers[turn % len(answers)]


def substitute(words: Sequence[str]) -> Words:
    """The words as the script wants to see them."""
    return tuple(new for word in words for new in SUBSTITUTIONS.get(word, word).split())


def match(pattern: Words, words: Words) -> list[Words] | None:
    """The words that each element of `pattern` stands for, or None when it does not fit.

    ``*`` stands for any number of words, as few as possible; ``@family`` for one word of a family; anything else for
    itself.
    """
    if not pattern:
        return None if words else []
    first, rest = pattern[0], pattern[1:]
    if first != "*":
        if not words or not _is_word(first, words[0]):
            return None
        tail = match(rest, words[1:])
        return None if tail is None else [words[:1], *tail]
    if not rest:
        return [words]
    for length in range(len(words) + 1):
        tail = match(rest, words[length:])
        if tail is not None:
            return [words[:length], *tail]
    return None


def assemble(answer: str, parts: Sequence[Words]) -> str:
    """`answer` with ``(2)`` replaced by the second part, "I" and "you" exchanged."""

    def part(found: re.Match[str]) -> str:
        return " ".join(EXCHANGES.get(word, word) for word in parts[int(found[1]) - 1])

    text = re.sub(r"\((\d)\)", part, answer)
    text = re.sub(r"\s+([?.!,])", r"\1", text)
    return re.sub(r"\bi\b", "I", re.sub(r"\s{2,}", " ", text))


def _is_word(wanted: str, word: str) -> bool:
    return word in FAMILIES[wanted[1:]] if wanted.startswith("@") else word == wanted


def _rank(keyword: Keyword) -> int:
    return -keyword.rank
