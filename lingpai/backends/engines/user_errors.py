"""Tracebacks as a model's author wants to see them: their own files, without the runtime around them."""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

_RUNTIME: Final = str(Path(__file__).parent)


class TargetError(Exception):
    """A target cannot be served. The message says why and what to do; `details` is the author's traceback, if any."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def authors_traceback(error: BaseException) -> str:
    """`error` as Python prints it, without the frames that led from the runtime into the author's code."""
    lines = traceback.format_exception(type(error), error, _from_authors_code(error.__traceback__))
    return "".join(lines).rstrip()


def _from_authors_code(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_ours(filename: str) -> bool:
    return filename.startswith((_RUNTIME, "<frozen importlib", "<frozen runpy"))
