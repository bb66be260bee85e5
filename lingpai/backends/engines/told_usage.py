"""The tokens that a model's own code told for one request (`lp.Usage`), gathered from all calls made for it.

A request begins with `begin_request`. An endpoint that builds an answer asks `told_usage` first, and estimates only
when that is None.
"""

from contextvars import ContextVar
from typing import Any

from lingpai.authoring import Usage


class _Tally:
    """What the calls of one request have told. Endpoints run them in one task or in tasks of that task's context."""

    __slots__ = ("calls", "told", "usage")

    def __init__(self) -> None:
        self.calls = self.told = 0
        self.usage = Usage()


_tally: ContextVar[_Tally | None] = ContextVar("tally", default=None)


def begin_request() -> None:
    """What is told from now on, in this context, belongs to a new request."""
    _tally.set(_Tally())


def note(usage: Usage | None) -> None:
    """One call has ended, and told its usage or (None) did not."""
    tally = _tally.get()
    if tally is None:
        return
    tally.calls += 1
    if usage is not None:
        tally.told += 1
        tally.usage += usage


def told_usage() -> dict[str, Any] | None:
    """OpenAI's usage object when every call of this request told its usage, else None: a sum with gaps is no count."""
    tally = _tally.get()
    if tally is None or not tally.told or tally.told < tally.calls:
        return None
    return usage_object(tally.usage)


def split_result(result: Any) -> tuple[Any, Usage | None]:
    """What a function returned, and the usage it returned beside it, if it did."""
    if type(result) is tuple and len(result) == 2 and isinstance(result[1], Usage):
        return result
    return result, None


def usage_object(usage: Usage) -> dict[str, Any]:
    """`usage` as OpenAI's answers have it; details only where there are any."""
    shown: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown
