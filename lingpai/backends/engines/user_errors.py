"""Tracebacks as a model's author wants to see them: their own files, without the runtime around them."""

import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from lingpai import authoring
from lingpai.backends.engines.repeating import Sent

_RUNTIME: Final = str(Path(__file__).parent)
_DECORATOR: Final = authoring.__file__
_MOST_REASON: Final = 300
_MOST_CAUSES: Final = 20
_LEFT_OUT: Final = "what it says repeats what a caller sent, or may do so, and is left out"
_CLASS: Final = re.compile(r"\A[\w.]+: ")


class TargetError(Exception):
    """A target cannot be served. The message says why and what to do; `details` is the author's traceback, if any."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def authors_traceback(error: BaseException, *, sent: Sent | None = None) -> str:
    """`error` as Python prints it, without the frames that led from the runtime into the author's code.

    When its message, or that of one of its causes, repeats something of `sent`, or may do so, only classes and lines of
    code are left.
    """
    if sent is not None and _may_repeat(error, sent):
        return "\n\nThat led to this:\n\n".join(
            _without_message(each, _from_authors_code(each.__traceback__), _LEFT_OUT)
            for each in reversed(_with_causes(error))
        )
    shown = traceback.TracebackException(type(error), error, _from_authors_code(error.__traceback__))
    while len(shown.stack) > 1 and shown.stack[-1].filename == _DECORATOR:
        shown.stack.pop()  # the decorator's own lines; the author's, where it stands, is the one before
    return "".join(shown.format()).rstrip()


def our_traceback(error: BaseException) -> str:
    """Classes and lines of code of a fault of ours: what it says is left out, because it may be of a caller's."""
    return "\n\nThat led to this:\n\n".join(
        _without_message(each, each.__traceback__, "what it says is left out")
        for each in reversed(_with_causes(error))
    )


def failure(source: str, what: str, error: BaseException) -> TargetError:
    """Why `source` cannot be served, `what` (say, "could not be loaded") being what failed with `error`."""
    details = authors_traceback(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        message = f"`{source}` needs the module `{error.name}`, which is not installed beside Lingpai."
        message += " Install the package that has it into the same environment: `python -m pip install …`."
    elif is_decorators(error):
        message = f"`{source}`: {error}"
    else:
        message = f"`{source}` {what}: {reason(error)}"
    return TargetError(message, details=details)


def reason(error: BaseException) -> str:
    """The exception's type and the first line of its message, as a sentence."""
    first = str(error).strip().partition("\n")[0].strip()
    text = first if len(first) <= _MOST_REASON else first[:_MOST_REASON] + " …"
    shown = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shown if shown.endswith((".", "!", "?", "…")) else f"{shown}."


def is_decorators(error: BaseException) -> bool:
    """Whether `@lp.model` itself refused what it was told: its message says all."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_there = trace is not None and trace.tb_frame.f_code.co_filename == _DECORATOR
    return raised_there and isinstance(error, ValueError | TypeError)


def _may_repeat(error: BaseException, sent: Sent) -> bool:
    errors = _with_causes(error)
    # There may be more of them, which Python prints, too.
    return len(errors) == _MOST_CAUSES or sent.is_repeated_in([_message(each) for each in errors])


def _with_causes(error: BaseException) -> list[BaseException]:
    """`error`, what led to it, and what is grouped in them: all whose messages Python prints, if they are not too many."""
    found: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following and len(found) < _MOST_CAUSES:
        each = following.pop()
        if each is None or any(each is other for other in found):
            continue
        found.append(each)
        hidden = each.__cause__ is not None or each.__suppress_context__
        following.append(each.__cause__ if hidden else each.__context__)
        following += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return found


def _message(error: BaseException) -> str:
    """All that Python prints of `error` besides its class, notes and the text of a syntax error too."""
    return _CLASS.sub("", "".join(traceback.format_exception_only(error)))


def _without_message(error: BaseException, trace: TracebackType | None, instead: str) -> str:
    frames = "".join(traceback.format_tb(trace))
    return f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {instead}"


def _from_authors_code(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_ours(filename: str) -> bool:
    return filename.startswith((_RUNTIME, "<frozen importlib", "<frozen runpy"))
