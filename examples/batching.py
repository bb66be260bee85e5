"""Calls of many callers in one batch, with an error that is one caller's alone.

lingpai serve examples/batching.py
lingpai run acme/word-vectors "hello there"
"""

import lingpai as lp

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 1000


@lp.model("acme/word-vectors", task="embedding", batch=lp.Batch(max_size=64, max_wait_ms=5), timeout_s=30)
def word_vectors(texts: list[str]):
    """How often each letter occurs: one call of the function, however many callers there are."""
    return [vector(text) for text in texts]


def vector(text: str):
    if len(text) > LONGEST:
        # Returned, not raised: the other texts of the batch are not at fault.
        return lp.InputError(f"A text may have {LONGEST} characters.")
    counts = [text.lower().count(letter) / len(text) for letter in LETTERS]
    return counts, lp.Usage(prompt_tokens=len(text.split()))
