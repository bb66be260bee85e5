"""OpenAI's `/v1/images/generations`.

Nothing is stored, so there is no address to answer with: where `url` is asked for, it is a data URL.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire.openai import Request, whole_number

MOST_IMAGES: Final = 10


class ImagesRequest(Request):
    """`POST /v1/images/generations`."""

    prompt: str | None = None
    n: int | float | None = None
    response_format: str | None = None

    def check(self) -> None:
        """Refuse a request without a prompt, and what is not offered. Raises LingpaiError `invalid_request`."""
        if not self.prompt:
            raise LingpaiError("invalid_request", '`prompt` is missing. Send "prompt": "…".', "prompt")
        self.n = whole_number("n", self.n)
        if self.n is not None and not 1 <= self.n <= MOST_IMAGES:
            raise LingpaiError("invalid_request", f"`n` must be from 1 to {MOST_IMAGES}.", "n")
        if self.response_format not in (None, "url", "b64_json"):
            message = "`response_format` must be `b64_json` or `url`."
            raise LingpaiError("invalid_request", message, "response_format")
        if self.stream:
            raise LingpaiError("invalid_request", "Images are not streamed. Leave `stream` out.", "stream")


IMAGES: Final = msgspec.json.Decoder(ImagesRequest)


def images_answer(images: Sequence[dict[str, Any]], *, usage: dict[str, Any] | None) -> dict[str, Any]:
    """The answer, from ``{"b64_json"}`` or ``{"url"}`` objects."""
    answer: dict[str, Any] = {"created": int(time.time()), "data": list(images)}
    return answer if usage is None else {**answer, "usage": usage}
