"""The script ELIZA plays: a listener who turns what is said back into questions.

Patterns and answers are explained in `eliza.py`. Rules are tried from first to last, so the special ones come first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """How a sentence is taken apart, and what can be said to it."""

    pattern: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keyword:
    """A word worth answering to; the higher its rank, the sooner. `memory` rules put an answer by for later."""

    word: str
    rank: int
    rules: tuple[Rule, ...]
    memory: tuple[Rule, ...] = ()


def _rule(pattern: str, *answers: str) -> Rule:
    return Rule(tuple(pattern.split()), answers)


def _keyword(word: str, rank: int, *rules: Rule, memory: tuple[Rule, ...] = ()) -> Keyword:
    return Keyword(word, rank, rules, memory)


SUBSTITUTIONS: Final[Mapping[str, str]] = {
    "aren't": "are not", "can't": "can not", "cannot": "can not", "certainly": "yes", "computers": "computer",
    "didn't": "did not", "doesn't": "does not", "don't": "do not", "dont": "do not", "dreams": "dream",
    "dreamt": "dreamed", "he's": "he is", "hello": "hi", "hey": "hi", "how's": "how is", "i'd": "i would",
    "i'll": "i will", "i'm": "i am", "i've": "i have", "im": "i am", "isn't": "is not", "it's": "it is",
    "machine": "computer", "machines": "computer", "maybe": "perhaps", "model": "computer", "nope": "no",
    "recollect": "remember", "same": "alike", "she's": "she is", "that's": "that is", "they're": "they are",
    "wasn't": "was not", "we're": "we are", "what's": "what is", "won't": "will not", "yeah": "yes", "yep": "yes",
    "you'd": "you would", "you'll": "you will", "you're": "you are", "you've": "you have",
}  # fmt: skip
"""Done to what the user says before anything else."""

EXCHANGES: Final[Mapping[str, str]] = {
    "am": "are", "are": "am", "i": "you", "me": "you", "mine": "yours", "my": "your", "myself": "yourself",
    "was": "were", "were": "was", "you": "me", "your": "my", "yours": "mine", "yourself": "myself",
}  # fmt: skip
"""Done to the parts of a sentence that an answer repeats."""

FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "belief": frozenset({"believe", "feel", "guess", "suppose", "think", "wish"}),
    "be": frozenset({"am", "are", "is", "was", "were"}),
    "everyone": frozenset({"all", "always", "everybody", "everyone", "nobody", "none"}),
    "family": frozenset({
        "brother", "child", "children", "dad", "daughter", "family", "father", "husband", "mom", "mother", "mum",
        "parents", "sister", "son", "wife",
    }),
    "happy": frozenset({"better", "cheerful", "content", "glad", "happy", "relieved"}),
    "sad": frozenset({"alone", "angry", "anxious", "depressed", "lonely", "sad", "sick", "tired", "unhappy"}),
    "want": frozenset({"crave", "desire", "need", "want"}),
}  # fmt: skip

NOTHING_FOUND: Final = (
    "Please go on.",
    "I am listening. What comes to your mind about that?",
    "I am not certain that I follow you. Could you put it another way?",
    "What does that suggest to you?",
    "Does talking about this move you?",
)

_ALIKE: Final = (
    "What likeness do you see?",
    "In what way?",
    "What else does it make you think of?",
    "Could there be a real connection, do you suppose?",
)

_SCRIPT: Final = (
    _keyword(
        "sorry", 0,
        _rule("*", "There is no need to apologize.", "Apologies are not necessary here.", "What do you feel when you apologize?"),
    ),
    _keyword(
        "remember", 5,
        _rule("* i remember *", "Do you often think of (4)?", "Does thinking of (4) bring anything else back?", "Why do you remember (4) just now?", "What in our talk reminded you of (4)?"),
        _rule("* do you remember *", "Did you think I would forget (5)?", "Why should I recall (5) now?", "What about (5)?"),
        _rule("*", "What else do you remember?"),
    ),
    _keyword(
        "if", 3,
        _rule("* if *", "Do you think it likely that (3)?", "Do you wish that (3)?", "What would it mean to you if (3)?", "Really, if (3)?"),
    ),
    _keyword(
        "dreamed", 4,
        _rule("* i dreamed *", "So you dreamed (4). How did it leave you?", "Have you imagined (4) while awake?", "Had you dreamed (4) before?"),
        _rule("*", "=dream"),
    ),
    _keyword(
        "dream", 3,
        _rule("*", "What does that dream tell you?", "Who appears in your dreams?", "Do your dreams trouble you?"),
    ),
    _keyword("perhaps", 0, _rule("*", "You do not seem quite certain.", "What makes you hesitate?", "Could you be more definite?")),
    _keyword("name", 15, _rule("*", "Names do not matter to me. Please go on.", "I would rather hear about you than about names.")),
    _keyword("hi", 0, _rule("*", "How do you do. What is on your mind?", "Hello. What would you like to talk about?")),
    _keyword(
        "computer", 50,
        _rule("*", "Do computers worry you?", "Why do you bring up computers?", "What do you think machines have to do with it?", "What is it about machines that concerns you?", "Could computers help people, in your opinion?"),
    ),
    _keyword(
        "am", 0,
        _rule("* am i *", "Do you believe you are (4)?", "Would you like to be (4)?", "What would it mean if you were (4)?", "=what"),
        _rule("*", "Why do you say 'am'?", "I do not quite understand that."),
    ),
    _keyword(
        "are", 0,
        _rule("* are you *", "Why does it interest you whether I am (4)?", "Would you like it better if I were not (4)?", "Do you sometimes imagine that I am (4)?", "=what"),
        _rule("* are *", "Did you expect them not to be (3)?", "Would you like it if they were not (3)?", "Are they always (3)?"),
    ),
    _keyword(
        "your", 0,
        _rule("* your *", "Why are you concerned about my (3)?", "What about your own (3)?", "Does somebody else's (3) worry you too?", "My (3)? Why?"),
    ),
    _keyword(
        "was", 2,
        _rule("* was i *", "What if you were (4)?", "Do you think you were (4)?", "What would it tell you if you had been (4)?"),
        _rule("* i was *", "Were you really?", "Why do you tell me now that you were (4)?", "I may have suspected that you were (4)."),
        _rule("* was you *", "Would you like to think I was (4)?", "What makes you ask whether I was (4)?"),
    ),
    _keyword(
        "i", 0,
        _rule("* i @want *", "What would it mean to you if you got (4)?", "Why do you want (4)?", "Suppose you got (4) soon: what then?", "What if you never got (4)?"),
        _rule("* i am * @sad *", "I am sorry to hear that you are (5).", "Does coming here help you when you are (5)?", "Can you tell me what made you (5)?"),
        _rule("* i am * @happy *", "Did I help you to be (5)?", "What makes you (5) just now?", "Can you say why you are suddenly (5)?"),
        _rule("* i am *", "Is it because you are (4) that you came to me?", "How long have you been (4)?", "Do you think it normal to be (4)?", "Do you like being (4)?"),
        _rule("* i @belief i *", "Do you really think so?", "But you are not sure that you (5)?", "Do you sometimes doubt that you (5)?"),
        _rule("* i @belief * you *", "=you"),
        _rule("* i can not *", "How do you know that you cannot (5)?", "Have you tried?", "Perhaps you could (5) now?", "What would happen if you could (5)?"),
        _rule("* i do not *", "Do you truly not (5)?", "Why do you not (5)?", "Would you like to be able to (5)?", "Does that trouble you?"),
        _rule("* i feel *", "Tell me more about such feelings.", "Do you often feel (4)?", "When do you feel (4)?", "What does feeling (4) remind you of?"),
        _rule("* i * you *", "Perhaps in your thoughts we (3) each other.", "Do you wish to (3) me?", "Do you (3) anybody else?"),
        _rule("* i *", "You say you (3).", "Can you tell me more about that?", "Do you say you (3) for some particular reason?"),
    ),
    _keyword(
        "you", 0,
        _rule("* you remind me of *", "=alike"),
        _rule("* you are *", "What makes you think I am (4)?", "Does it please you to believe I am (4)?", "Do you sometimes wish you were (4)?"),
        _rule("* you * me *", "Why do you think I (3) you?", "You like to think I (3) you, don't you?", "What makes you believe that I (3) you?"),
        _rule("* you *", "We were talking about you, not about me.", "You are not really speaking of me, are you?", "What are your feelings now?"),
    ),
    _keyword("yes", 0, _rule("*", "You seem quite sure.", "I see.", "I understand. Please say more.")),
    _keyword("no", 0, _rule("*", "Are you saying no just to be contrary?", "That sounds a little negative.", "Why not?")),
    _keyword(
        "my", 2,
        _rule("* my * @family *", "Tell me more about your family.", "Who else in your family (5)?", "What else comes to mind when you think of your (4)?"),
        _rule("* my *", "Your (3)?", "Why do you say your (3)?", "Does that suggest anything else that is yours?", "Is it important to you that your (3)?"),
        memory=(
            _rule("* my *", "Let us talk further about why your (3).", "Earlier you said your (3).", "Does this have anything to do with the fact that your (3)?"),
        ),
    ),
    _keyword(
        "can", 0,
        _rule("* can you *", "You believe I can (4), don't you?", "You would like me to be able to (4).", "Perhaps you would like to be able to (4) yourself."),
        _rule("* can i *", "Whether you can (4) depends more on you than on me.", "Do you want to be able to (4)?", "Perhaps you do not want to (4)."),
    ),
    _keyword("what", 0, _rule("*", "Why do you ask?", "Does that question interest you?", "What is it you really want to know?", "What answer would please you most?", "What comes to mind when you ask that?")),
    _keyword("who", 0, _rule("*", "=what")),
    _keyword("when", 0, _rule("*", "=what")),
    _keyword("where", 0, _rule("*", "=what")),
    _keyword("how", 0, _rule("*", "=what")),
    _keyword("because", 0, _rule("*", "Is that the real reason?", "Do any other reasons come to mind?", "Does that reason explain anything else?", "What other reasons might there be?")),
    _keyword(
        "why", 0,
        _rule("* why do not you *", "Do you believe I do not (6)?", "Perhaps I will (6) in good time.", "Should you (6) yourself?"),
        _rule("* why can not i *", "Do you think you should be able to (6)?", "Do you want to be able to (6)?", "Have you any idea why you cannot (6)?"),
        _rule("*", "=what"),
    ),
    _keyword("everyone", 2, _rule("* @everyone *", "Really, (2)?", "Surely not (2).", "Can you think of anyone in particular?", "Who, for example?")),
    _keyword("everybody", 2, _rule("*", "=everyone")),
    _keyword("nobody", 2, _rule("*", "=everyone")),
    _keyword("always", 1, _rule("*", "Can you think of a particular time?", "When?", "Really, always?")),
    _keyword("alike", 10, _rule("*", *_ALIKE)),
    _keyword("like", 10, _rule("* @be * like *", "=alike"), _rule("*", "=i")),
)  # fmt: skip

KEYWORDS: Final[Mapping[str, Keyword]] = {keyword.word: keyword for keyword in _SCRIPT}
