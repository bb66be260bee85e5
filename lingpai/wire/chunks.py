"""Stream chunks of chat and text completions: what is read from them, and repairs that clients depend on."""

import re
from typing import Any, Final

import msgspec

from lingpai.wire import sse
from lingpai.wire.tool_calls import ToolCalls
from lingpai.wire.usage import NONSENSE, Usage, read_usage

# Inside a JSON string a quote is escaped, so none of these can appear in the model's own text by accident.
_REPAIR: Final = re.compile(rb'"tool_calls"|"(?:choices|delta)"\s*:\s*null')


_TEXT: Final = re.compile(rb'"(?:content|text)":\s*"([^"\\\n]*)"')


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


def is_plain(run: bytes) -> bool:
    """Whether a run of events can be passed on without looking into it (asked for every piece of every stream).

    True only when every event visibly has a choice with content, and nothing else of interest stands anywhere.
    """
    events = run.count(b"data:")
    if run.count(b'"choices":[{') != events and run.count(b'"choices": [{') != events:
        return False  # the usage chunk, [DONE], an error, or a spelling that wants a closer look
    deltas = run.count(b'"delta"')
    if deltas != run.count(b'"delta":{') and deltas != run.count(b'"delta": {'):
        return False
    if b'"usage"' in run and run.count(b'"usage"') != run.count(b'"usage":null') + run.count(
        b'"usage": null'
    ):
        return False
    return b'"tool_calls"' not in run and b'"error"' not in run


class ContentShape:
    """What surrounds the text in the chunks of one stream, so that the next one is known at a glance.

    A backend writes all chunks of a stream alike, but for the text. A piece that begins and ends like one that was
    plain, with neither a quote nor a line break in between, can be nothing but one more chunk of text.
    """

    __slots__ = ("_begin", "_end", "_lessons", "overhead")

    def __init__(self) -> None:
        self.overhead = 0
        """How many bytes a chunk has beside its text; 0 until it is known."""
        self._begin = self._end = b""
        self._lessons = 8  # a backend that varies its chunks is not worth learning from for ever

    def fits(self, run: bytes) -> bool:
        """Whether `run` is one more chunk of text, written like the one before."""
        begin, end = self._begin, self._end
        if not begin or not run.startswith(begin) or not run.endswith(end):
            return False
        start, stop = len(begin), len(run) - len(end)
        return start <= stop and run.find(b'"', start, stop) < 0 and run.find(b"\n", start, stop) < 0

    def learn(self, run: bytes) -> None:
        """Take a plain run for the pattern of those to come, if it is a single chunk with text in it."""
        if not self._lessons:
            return
        self._lessons -= 1
        match = _TEXT.search(run)
        if match is not None and run.count(b"\n\n") == 1:
            self._begin, self._end = run[: match.start(1)], run[match.end(1) :]
            self.overhead = len(self._begin) + len(self._end)


class StreamReader:
    """Looks into the events of one stream: takes the usage out, repairs chunks, notices errors and the end."""

    __slots__ = ("_tool_calls", "done", "error", "keep_usage", "usage")

    def __init__(self, *, keep_usage: bool) -> None:
        self.keep_usage = keep_usage
        self.usage: Usage | None = None
        self.done = False
        self.error: bytes | None = None
        self._tool_calls: dict[int, ToolCalls] = {}  # by the index of the choice

    def read(self, run: bytes) -> bytes:
        """`run` as the caller shall get it: without [DONE] (see `done`), maybe without the usage chunk."""
        kept = []
        for event in sse.split_events(run):
            data = sse.event_data(event)
            if data is None:
                kept.append(event)
            elif data.strip() == b"[DONE]":
                self.done = True
            else:
                kept.append(self._read_chunk(event, data))
        return b"".join(kept)

    def _read_chunk(self, event: bytes, data: bytes) -> bytes:
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event  # not ours to judge: an unknown event type passes through
        error = bytes(chunk.error)
        if error not in (b"", b"null", b'""'):
            self.error = error
        if bytes(chunk.usage) not in (b"", b"null"):
            usage = read_usage(chunk.usage)
            if usage is not NONSENSE or self.usage is None:
                self.usage = usage
            if not chunk.choices and not self.keep_usage:
                return b""
        if _REPAIR.search(data):
            try:
                return sse.data_event(repair(data, self._tool_calls))
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                return event  # what cannot be read cannot be repaired
        return event


def repair(data: bytes, tool_calls: dict[int, ToolCalls]) -> bytes:
    """A chunk with what clients index without asking: `choices` and `delta` present, `tool_calls[].index` an int.

    Some backends leave these out or send null, and the stock SDKs and their relatives break on it. `tool_calls` is
    what earlier chunks of the stream have begun, by the index of the choice; it is kept up to date.
    """
    chunk = msgspec.json.decode(data)
    if not isinstance(chunk, dict):
        return data
    if "choices" in chunk and chunk["choices"] is None:
        chunk["choices"] = []
    for position, choice in enumerate(chunk.get("choices") or []):
        if isinstance(choice, dict) and "delta" in choice:
            _repair_choice(choice, position, tool_calls)
    return msgspec.json.encode(chunk)


def _repair_choice(choice: dict[str, Any], position: int, tool_calls: dict[int, ToolCalls]) -> None:
    delta = choice["delta"]
    if delta is None:
        choice["delta"] = {}
    entries = delta.get("tool_calls") if isinstance(delta, dict) else None
    if isinstance(entries, list):
        index = choice.get("index")
        key = index if isinstance(index, int) else position
        tool_calls.setdefault(key, ToolCalls()).repair(entries)
