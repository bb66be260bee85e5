"""The kinds of models there are: one name each, and where models of a kind are called.

Names are Hugging Face's pipeline names where it has one; ModelScope's are accepted as aliases.
"""

from collections.abc import Mapping
from typing import Final

CHAT: Final = "chat"
COMPLETION: Final = "completion"
EMBEDDING: Final = "embedding"
GENERIC: Final = "generic"
RERANK: Final = "rerank"
SPEECH: Final = "text-to-speech"
TEXT_TO_IMAGE: Final = "text-to-image"
TRANSCRIPTION: Final = "automatic-speech-recognition"

GENERATION: Final = frozenset({CHAT, COMPLETION})

ADDRESSES: Final[Mapping[str, str]] = {
    CHAT: "/v1/chat/completions",
    COMPLETION: "/v1/completions",
    EMBEDDING: "/v1/embeddings",
    RERANK: "/v1/rerank",
    SPEECH: "/v1/audio/speech",
    TEXT_TO_IMAGE: "/v1/images/generations",
    TRANSCRIPTION: "/v1/audio/transcriptions",
}
"""The address of its own that a task has; all others have the inference endpoint only."""
