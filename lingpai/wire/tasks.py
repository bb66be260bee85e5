"""The kinds of models there are: one name each, and the names other hubs use for them.

Names are Hugging Face's pipeline names where it has one; ModelScope's are accepted as aliases.
"""

from typing import Final

CHAT: Final = "chat"
COMPLETION: Final = "completion"
EMBEDDING: Final = "embedding"
GENERIC: Final = "generic"

GENERATION: Final = frozenset({CHAT, COMPLETION})
