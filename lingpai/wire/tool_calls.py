"""Which tool call a piece of a stream belongs to, where the backend leaves `index` out.

Clients join the arguments of one call by `tool_calls[].index` (the OpenAI API reference, chat completion chunks).
"""

from typing import Any


class ToolCalls:
    """The tool calls of one choice of a stream, as far as they have come."""

    __slots__ = ("_by_id", "_last", "_next")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._last = 0
        self._next = 0

    def repair(self, entries: list[Any]) -> None:
        """Give every entry of one chunk its `index`, and an entry with an id its `type`.

        A new id begins the next call. An entry without id goes on with the call before; several of them in one chunk
        go on with as many calls, in their order. An `index` from the backend stays.
        """
        calls = [entry for entry in entries if isinstance(entry, dict)]
        anonymous = sum(1 for call in calls if not _id(call) and not _has_index(call))
        if anonymous > 1:
            self._last = max(0, self._next - anonymous) - 1  # one before the first of them
        for call in calls:
            if not _has_index(call):
                call["index"] = self._index(call, is_alone=anonymous < 2)
            self._remember(call)
            if _id(call) and call.get("type") is None:
                call["type"] = "function"

    def _index(self, call: dict[str, Any], *, is_alone: bool) -> int:
        identifier = _id(call)
        if identifier:
            return self._by_id.get(identifier, self._next)
        return self._last if is_alone else self._last + 1

    def _remember(self, call: dict[str, Any]) -> None:
        index: int = call["index"]
        self._last = index
        self._next = max(self._next, index + 1)
        identifier = _id(call)
        if identifier:
            self._by_id[identifier] = index


def _id(call: dict[str, Any]) -> str:
    """The id, or an empty text: some backends send null or "" with every piece but the first."""
    identifier = call.get("id")
    return identifier if isinstance(identifier, str) else ""


def _has_index(call: dict[str, Any]) -> bool:
    return type(call.get("index")) is int  # true and false are no numbers in JSON
