"""Server-sent events from bytes, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.client import _sse
from lingpai.client._sse import Event, EventDecoder, EventTooLargeError

STREAM = (
    ": ping\r\n\r\n"
    'data: {"a": 1}\r\n\r\n'
    "event: error\rdata: 你好\r\r"
    "data:first\ndata: second\nid: 7\nretry: 10\n\n"
    "unknown: x\n\n"
    "data\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event("message", '{"a": 1}'),
    Event("error", "你好"),
    Event("message", "first\nsecond"),
    Event("message", ""),
    Event("message", "[DONE]"),
]


def decode(*pieces):
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def test_comments_line_ends_and_several_data_lines():
    assert decode(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_where_the_stream_is_cut_does_not_matter(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]

    assert decode(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_one_byte_at_a_time():
    assert decode(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


def test_a_byte_order_mark_is_dropped():
    assert decode("\ufeffdata: x\n\n".encode()) == [Event("message", "x")]


def test_an_event_without_its_empty_line_is_not_lost():
    decoder = EventDecoder()

    assert decoder.feed(b'event: error\ndata: {"error": 1}\r') == []
    assert decoder.finish() == [Event("error", '{"error": 1}')]


def test_an_event_that_never_ends_does_not_fill_memory(monkeypatch):
    monkeypatch.setattr(_sse, "MAX_EVENT_BYTES", 100)

    with pytest.raises(EventTooLargeError):
        decode(b"data: " + b"x" * 101)
    with pytest.raises(EventTooLargeError):
        decode(*[b"data: xxxxxxxxx\n"] * 12)
