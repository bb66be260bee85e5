"""Counts tokens with a model's own tokenizer: a `tokenizer.json`, as Hugging Face's models have one.

The library is `tokenizers`, which only servers with such models need. Counting is CPU work that lets go of the
interpreter lock, so it runs in threads of its own and never on the event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

_log = logging.getLogger("lingpai.metering")

THREADS: Final = 2
MAX_CHARACTERS: Final = 8 * 1024 * 1024
"""A longer text is cut into pieces of this size: a tokenizer needs many times a text's memory."""


Texts = Callable[[], Iterable[str]]
"""Reads texts out of something larger, in the thread that counts them."""


class TokenizerError(Exception):
    """A tokenizer cannot be used. The message says which, why, and what to do."""


class Tokenizer(Protocol):
    """Counts the tokens of texts. Blocking."""

    def count(self, text: str) -> int:
        """How many tokens `text` has, without any that stand for a beginning or an end."""
        ...


class FileTokenizer:
    """A tokenizer from a `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        """Raises TokenizerError when there is no such file, when it holds no tokenizer, or without the library."""
        try:
            import tokenizers  # noqa: PLC0415  optional: only servers with a `tokenizer` setting need it
        except ImportError:
            raise TokenizerError(
                f"{path} needs the library `tokenizers`. Install it: pip install tokenizers"
            ) from None
        if not path.is_file():
            raise TokenizerError(f"There is no file {path}.")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare `Exception` for whatever is wrong with a file
            raise TokenizerError(f"{path} is no tokenizer: {error}") from error
        # Files often ask for a fixed length, cut or filled up, which is for models that are run in batches.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        pieces = (text[at : at + MAX_CHARACTERS] for at in range(0, len(text), MAX_CHARACTERS))
        return sum(len(self._tokenizer.encode(piece, add_special_tokens=False)) for piece in pieces)


class TokenCounter:
    """The threads that tokenizers run in."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="lingpai-tokens")

    async def count(self, tokenizer: Tokenizer, *texts: Texts) -> list[int] | None:
        """The tokens of each of `texts`; None when the tokenizer fails, which the log then says."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, _count, tokenizer, texts)
        except Exception:  # noqa: BLE001  foreign code on foreign text: a call must not fail for want of a count
            _log.exception("a tokenizer failed; tokens are estimated instead")
            return None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _count(tokenizer: Tokenizer, texts: Sequence[Texts]) -> list[int]:
    return [sum(map(tokenizer.count, read())) for read in texts]
