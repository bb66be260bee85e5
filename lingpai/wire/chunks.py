"""Stream chunks of chat and text completions: what is read from them, and repairs that clients depend on."""

import re
from typing import Any, Final

import msgspec

from lingpai.wire import sse
from lingpai.wire.usage import Usage, read_usage

# Inside a JSON string a quote is escaped, so none of these can appear in the model's own text by accident.
_REPAIR: Final = re.compile(rb'"tool_calls"|"(?:choices|delta)"\s*:\s*null')


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


def is_plain(run: bytes) -> bool:
    """Whether a run of events can be passed on without looking into it (asked for every piece of every stream).

    True only when every event visibly has a choice with content, and nothing else of interest stands anywhere.
    """
    events = run.count(b"data: ")
    if run.count(b'"choices":[{') != events and run.count(b'"choices": [{') != events:
        return False  # the usage chunk, [DONE], an error, or a spelling that wants a closer look
    if run.count(b'"delta":{') != events and run.count(b'"delta": {') != events and b'"delta"' in run:
        return False
    if b'"usage"' in run and run.count(b'"usage"') != run.count(b'"usage":null') + run.count(
        b'"usage": null'
    ):
        return False
    return b'"tool_calls"' not in run and b'"error"' not in run


class StreamReader:
    """Looks into the events of one stream: takes the usage out, repairs chunks, notices errors and the end."""

    __slots__ = ("done", "error", "keep_usage", "usage")

    def __init__(self, *, keep_usage: bool) -> None:
        self.keep_usage = keep_usage
        self.usage: Usage | None = None
        self.done = False
        self.error: bytes | None = None

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
        except msgspec.DecodeError:
            return event  # not ours to judge: an unknown event type passes through
        error = bytes(chunk.error)
        if error not in (b"", b"null", b'""'):
            self.error = error
        usage = read_usage(chunk.usage)
        if usage is not None:
            self.usage = usage
            if not chunk.choices and not self.keep_usage:
                return b""
        if _REPAIR.search(data):
            return sse.data_event(repair(data))
        return event


def repair(data: bytes) -> bytes:
    """A chunk with what clients index without asking: `choices` and `delta` present, `tool_calls[].index` an int.

    Some backends leave these out or send null, and the stock SDKs and their relatives break on it.
    """
    chunk = msgspec.json.decode(data)
    if not isinstance(chunk, dict):
        return data
    if "choices" in chunk and chunk["choices"] is None:
        chunk["choices"] = []
    for choice in chunk.get("choices") or []:
        if isinstance(choice, dict) and "delta" in choice:
            choice["delta"] = _repair_delta(choice["delta"])
    return msgspec.json.encode(chunk)


def _repair_delta(delta: Any) -> Any:
    if delta is None:
        return {}
    calls = delta.get("tool_calls") if isinstance(delta, dict) else None
    if isinstance(calls, list):
        for position, call in enumerate(calls):
            if isinstance(call, dict):
                if not isinstance(call.get("index"), int):
                    call["index"] = position
                if "id" in call and call.get("type") is None:
                    call["type"] = "function"
    return delta
