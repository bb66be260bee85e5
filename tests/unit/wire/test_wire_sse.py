"""Cutting a stream at event borders: however the bytes arrive, the same events come out, each of them whole."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lingpai.wire import sse
from lingpai.wire.sse import EventCutter, EventTooLongError

LINE_ENDS = st.sampled_from(["\n", "\r\n"])
LINES = st.sampled_from(["data: {}", "data: é", "data:x", ": ping", "event: a", "data", "id: 7"])


@st.composite
def streams(draw, line_end=LINE_ENDS) -> bytes:
    """Some events. Every line may end in its own way, and there may be empty lines too many."""
    text = ""
    for _ in range(draw(st.integers(0, 5))):
        for line in draw(st.lists(LINES, min_size=1, max_size=3)):
            text += line + draw(line_end)
        text += "".join(draw(st.lists(line_end, min_size=1, max_size=3)))
    return text.encode()


ANY_STREAMS = streams()


@st.composite
def cut_up(draw, stream=ANY_STREAMS) -> list[bytes]:
    """A stream in pieces, cut at any bytes."""
    whole = draw(stream)
    borders = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in zip([0, *borders], [*borders, len(whole)], strict=True)]


def reference_events(stream: bytes) -> list[list[bytes]]:
    """The events by the letter of the standard: lines, and an empty one ends an event."""
    events, lines = [], []
    for line in re.split(rb"\r\n|\n", stream)[:-1]:
        if line:
            lines.append(line)
        elif lines:
            events.append(lines)
            lines = []
    return events


def lines_of(event: bytes) -> list[bytes]:
    return [line for line in re.split(rb"\r\n|\n", event) if line]


def feed_all(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    cutter = EventCutter()
    runs = [cutter.feed(piece) for piece in pieces]
    return runs, cutter.rest()


@settings(deadline=None)
@given(cut_up())
@example([b"data: a\n\n", b"\n\ndata: b", b"\n\n"])
@example([b"data: a\n\r\n", b"data: b\r\n\n"])
def test_nothing_is_lost_added_or_reordered(pieces):
    runs, rest = feed_all(pieces)

    assert b"".join(runs) + rest == b"".join(pieces)


@settings(deadline=None)
@given(cut_up())
@example([b"data: a\n\n", b"\n\ndata: b", b"\n\n"])
@example([b"\r\n\n\ndata: b", b"\n\n"])
def test_every_run_holds_whole_events_only(pieces):
    """Also when a piece begins with empty lines: what follows them is not whole yet."""
    runs, _ = feed_all(pieces)

    events = [lines_of(event) for run in runs for event in sse.split_events(run)]
    assert [event for event in events if event] == reference_events(b"".join(runs))


@settings(deadline=None)
@given(
    cut_up() | cut_up(streams(line_end=st.just("\n"))) | cut_up(streams(line_end=st.just("\r\n"))),
)
@example([b"data: a\n\r\n"])
def test_events_are_handed_on_as_soon_as_they_are_whole(pieces):
    """The runs up to any piece hold all events that had ended by then, whichever way their lines ended."""
    cutter = EventCutter()
    arrived = handed_on = b""

    for piece in pieces:
        arrived += piece
        handed_on += cutter.feed(piece)

        assert reference_events(handed_on) == reference_events(arrived)


def test_comment_of_one_character_is_an_event():
    assert EventCutter().feed(b":\n\ndata: x") == b":\n\n"


def test_piece_that_ends_at_a_border_is_the_very_object_that_came():
    piece = b"data: a\n\ndata: b\n\n"

    assert EventCutter().feed(piece) is piece


def test_long_event_in_small_pieces_is_not_searched_again_and_again():
    """Eight megabytes in pieces of a hundred bytes: going over all of it each time would take minutes."""
    cutter = EventCutter()
    piece = b"x" * 100

    for _ in range(70_000):
        assert cutter.feed(piece) == b""

    assert len(cutter.feed(b"\n\nrest")) == 70_000 * 100 + 2
    assert cutter.rest() == b"rest"


def test_rest_is_given_once():
    cutter = EventCutter()
    cutter.feed(b"data: a\n\ndata: half")

    assert (cutter.rest(), cutter.rest()) == (b"data: half", b"")


@pytest.fixture
def short_events(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)


def test_event_without_an_end_is_not_kept_for_ever(short_events):
    cutter = EventCutter()
    cutter.feed(b"x" * 60)

    with pytest.raises(EventTooLongError):
        cutter.feed(b"x" * 60)


def test_many_short_events_are_not_too_long(short_events):
    assert len(EventCutter().feed(b"data: x\n\n" * 100 + b"data: y")) == 900


# -- single events


@settings(deadline=None)
@given(streams())
def test_split_events_gives_the_events_of_the_standard(stream):
    events = [lines_of(event) for event in sse.split_events(stream)]

    assert [event for event in events if event] == reference_events(stream)


def test_split_events_gives_each_its_empty_line():
    assert sse.split_events(b"data: a\r\n\r\nevent: x\r\ndata: b\r\n\r\n") == [
        b"data: a\n\n",
        b"event: x\ndata: b\n\n",
    ]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data:\n\n", b""),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"event: x\nid: 1\ndata: a\n\n", b"a"),
        (b": ping\n\n", None),
        (b"event: x\n\n", None),
        (b"database: x\n\n", None),
    ],
)
def test_event_data_follows_the_standard(event, data):
    assert sse.event_data(event) == data


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_divide_lines(separator):
    """JSON may hold these characters; for the standard they are no line ends."""
    data = f'{{"content":"a{separator}data: b"}}'.encode()

    assert sse.event_data(b"data: " + data + b"\n\n") == data


@settings(deadline=None)
@given(st.binary().filter(lambda data: not re.search(rb"[\r\n]", data)))
def test_data_event_carries_its_data(data):
    event = sse.data_event(data)

    assert sse.split_events(event) == [event]
    assert sse.event_data(event) == data
