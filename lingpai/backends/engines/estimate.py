"""How many tokens a text has, for models that do not say. The rule, and how far it is off: wire/token_estimate.py.

Answers carry ``"estimated": true`` beside such counts.
"""

from lingpai.wire.token_estimate import TOKENS_PER_MESSAGE, estimate_texts, estimate_tokens, strings_in

__all__ = ["TOKENS_PER_MESSAGE", "estimate_texts", "estimate_tokens", "strings_in"]
