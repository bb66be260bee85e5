"""Stream chunks: usage taken out, repairs, errors, and that the fast path agrees with the slow one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.wire import sse
from lingpai.wire.chunks import StreamReader, is_plain, repair
from lingpai.wire.usage import NONSENSE

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def event(fields: dict | bytes, *, compact: bool = True) -> bytes:
    if isinstance(fields, bytes):
        return sse.data_event(fields)
    separators = (",", ":") if compact else (", ", ": ")
    return sse.data_event(json.dumps(fields, separators=separators).encode())


def delta(**fields) -> dict:
    return {**CHUNK, "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def read(run: bytes, *, keep_usage: bool = False) -> tuple[StreamReader, bytes]:
    reader = StreamReader(keep_usage=keep_usage)
    return reader, reader.read(run)


def only_chunk(out: bytes) -> dict:
    (one,) = sse.split_events(out)
    return json.loads(sse.event_data(one))


# -- usage


@pytest.mark.parametrize("choices", [[], None])
@pytest.mark.parametrize("compact", [True, False])
def test_usage_chunk_is_read_and_taken_out(choices, compact):
    text = event(delta(content="a"), compact=compact)
    run = text + event({**CHUNK, "choices": choices, "usage": USAGE}, compact=compact)

    reader, out = read(run)

    assert not is_plain(run)
    assert out == text
    assert (reader.usage.prompt_tokens, reader.usage.completion_tokens) == (3, 4)


def test_usage_chunk_without_choices_is_taken_out():
    assert read(event({**CHUNK, "usage": USAGE}))[1] == b""


def test_usage_chunk_is_kept_when_it_was_asked_for():
    run = event({**CHUNK, "choices": [], "usage": USAGE})

    reader, out = read(run, keep_usage=True)

    assert out == run
    assert reader.usage.prompt_tokens == 3


def test_usage_beside_text_is_read_and_the_text_stays():
    """Some backends report usage with every chunk or with the last text."""
    run = event({**delta(content="a"), "usage": USAGE})

    reader, out = read(run)

    assert out == run
    assert reader.usage.completion_tokens == 4


def test_later_usage_replaces_the_earlier_one():
    run = b"".join(event({**delta(), "usage": {"completion_tokens": n}}) for n in (1, 2, 9))

    assert read(run)[0].usage.completion_tokens == 9


def test_null_usage_beside_text_passes_on_the_fast_path():
    """With include_usage, backends send `"usage": null` in every chunk."""
    run = event({**delta(content="a"), "usage": None})

    reader, out = read(run)

    assert is_plain(run)
    assert out == run
    assert reader.usage is None


@pytest.mark.parametrize("usage", [{"prompt_tokens": "3"}, {"prompt_tokens": 1.5}, {"prompt_tokens": []}])
def test_usage_chunk_that_lies_is_taken_out_too(usage):
    """Clients index `choices[0]`: a chunk without choices that nobody asked for breaks them, whatever it counts."""
    reader, out = read(event({**CHUNK, "choices": [], "usage": usage}))

    assert out == b""
    assert reader.usage is NONSENSE


# -- the end


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \r\n\r\n"])
def test_done_is_noticed_and_taken_out(done):
    text = event(delta(content="a"))

    reader, out = read(text + done)

    assert not is_plain(done)
    assert reader.done
    assert out == text


def test_text_that_speaks_of_done_is_text():
    run = event(delta(content="data: [DONE]"))

    reader, out = read(run)

    assert out == run
    assert not reader.done


# -- errors


@pytest.mark.parametrize("error", [{"message": "boom"}, "boom", {"code": 500}])
def test_error_is_noticed_and_passed_on(error):
    run = event({"error": error})

    reader, out = read(run)

    assert not is_plain(run)
    assert json.loads(reader.error) == error
    assert out == run


@pytest.mark.parametrize("error", [None, ""])
def test_empty_error_is_none(error):
    assert read(event({**delta(content="a"), "error": error}))[0].error is None


def test_text_that_speaks_of_an_error_is_text():
    run = event(delta(content='{"error": {"message": "boom"}}'))

    assert read(run)[0].error is None


# -- what is not ours


@pytest.mark.parametrize(
    "run",
    [
        b": ping\n\n",
        b"event: ping\n\n",
        b'data: "tool_calls"\n\n',
        b"data: {not json\n\n",
        b'data: [1, "error"]\n\n',
        b'data: {"choices": {}, "error": null}\n\n',
        b"data: \n\n",
    ],
)
def test_unknown_events_pass_as_they_came(run):
    assert read(run)[1] == run


# -- repairs


def test_tool_calls_without_index_get_one():
    chunk = delta(
        tool_calls=[{"id": "a", "function": {}}, {"id": "b", "index": None}, {"id": "c", "index": "2"}]
    )

    run = event(chunk)
    calls = only_chunk(read(run)[1])["choices"][0]["delta"]["tool_calls"]

    assert not is_plain(run)
    assert [call["index"] for call in calls] == [0, 1, 2]


def test_tool_calls_in_separate_chunks_are_told_apart():
    """With one reader for the whole stream, in whatever pieces it comes."""
    begin_a, begin_b = ({"id": name, "function": {"name": name, "arguments": ""}} for name in "ab")
    more = {"function": {"arguments": "{}"}}
    reader = StreamReader(keep_usage=False)

    out = [
        only_chunk(reader.read(event(delta(tool_calls=[call])))) for call in (begin_a, more, begin_b, more)
    ]

    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in out]
    assert [call["index"] for call in calls] == [0, 0, 1, 1]
    assert [call.get("type") for call in calls] == ["function", None, "function", None]


def test_tool_calls_of_two_choices_are_counted_apart():
    def chunk(choice: int, call: dict) -> bytes:
        return event({**CHUNK, "choices": [{"index": choice, "delta": {"tool_calls": [call]}}]})

    pieces = [(0, {"id": "a"}), (1, {"id": "b"}), (0, {"id": "c"}), (1, {}), (0, {})]
    run = b"".join(chunk(choice, call) for choice, call in pieces)

    _, out = read(run)

    chunks = [json.loads(sse.event_data(one)) for one in sse.split_events(out)]
    assert [c["choices"][0]["delta"]["tool_calls"][0]["index"] for c in chunks] == [0, 0, 1, 0, 1]


def test_choices_without_index_are_told_apart_by_their_place():
    run = event({**CHUNK, "choices": [{"delta": {"tool_calls": [{"id": name}]}} for name in "ab"]})

    choices = only_chunk(read(run)[1])["choices"]

    assert [choice["delta"]["tool_calls"][0]["index"] for choice in choices] == [0, 0]


def test_tool_calls_with_an_index_keep_it():
    run = event(delta(tool_calls=[{"index": 5, "id": "a", "type": "function"}]))

    assert only_chunk(read(run)[1])["choices"][0]["delta"]["tool_calls"][0]["index"] == 5


def test_first_piece_of_a_tool_call_gets_its_type():
    """Only the piece with the id: later ones carry arguments only."""
    run = event(delta(tool_calls=[{"index": 0, "id": "a"}, {"index": 1, "function": {"arguments": "{"}}]))

    first, later = only_chunk(read(run)[1])["choices"][0]["delta"]["tool_calls"]

    assert first["type"] == "function"
    assert "type" not in later


def test_null_choices_become_an_empty_list():
    assert only_chunk(read(event({**CHUNK, "choices": None}))[1])["choices"] == []


def test_null_delta_becomes_an_empty_object():
    chunk = {**CHUNK, "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}

    choice = only_chunk(read(event(chunk))[1])["choices"][0]

    assert choice == {"index": 0, "delta": {}, "finish_reason": "stop"}


def test_repaired_event_keeps_everything_else():
    chunk = {**CHUNK, "choices": [{"index": 0, "delta": None, "x": [1, {"y": "你"}]}], "z": 0.1}

    assert json.loads(repair(json.dumps(chunk).encode(), {})) == {
        **CHUNK,
        "choices": [{"index": 0, "delta": {}, "x": [1, {"y": "你"}]}],
        "z": 0.1,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [None, 1, "a", {}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"tool_calls": None}}]},
        {"choices": [{"delta": {"tool_calls": [None, 1]}}]},
        {"choices": [{"delta": {"tool_calls": {}}}]},
    ],
)
def test_shapes_that_cannot_be_repaired_pass_unchanged(fields):
    assert json.loads(repair(json.dumps(fields).encode(), {})) == fields


def test_repairing_a_repaired_chunk_changes_nothing():
    once = repair(b'{"choices":[{"delta":{"tool_calls":[{"id":"a"}]}}]}', {})

    assert repair(once, {}) == once


# -- the fast path

CONTENT = st.text(max_size=10) | st.sampled_from([
    '"tool_calls"', '{"error": 1}', '"usage":{', "[DONE]", '"choices":null', "data: x\n\ndata: y", "\u2028", "\x85",
])  # fmt: skip
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": CONTENT | st.none(),
        "role": st.just("assistant"),
        "reasoning_content": CONTENT,
        "tool_calls": st.lists(st.dictionaries(st.sampled_from(["id", "index", "type"]), CONTENT | st.none()), max_size=2),
    },
)  # fmt: skip
CHOICES = st.fixed_dictionaries({"index": st.integers(0, 2), "delta": DELTAS | st.none()})
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2) | st.none()},
    optional={
        "usage": st.none() | st.just(USAGE) | st.just({}),
        "error": st.none() | st.just({"message": "boom"}),
        "model": CONTENT,
    },
)


@st.composite
def event_runs(draw) -> bytes:
    line_end = draw(st.sampled_from([b"\n", b"\r\n"]))
    run = b""
    for chunk in draw(st.lists(CHUNKS | st.just(b"[DONE]") | st.just(b"not json"), min_size=1, max_size=4)):
        one = event(chunk, compact=draw(st.booleans())).replace(b"\n\n", line_end * 2)
        run += one if draw(st.integers(0, 4)) else b": ping" + line_end * 2 + one
    return run


@settings(deadline=None)
@given(event_runs(), st.booleans())
def test_plain_run_is_one_that_the_slow_path_would_not_change(run, keep_usage):
    """And one in which there is nothing to be noticed."""
    reader, out = read(run, keep_usage=keep_usage)

    if is_plain(run):
        assert out == run.replace(b"\r\n", b"\n")
        assert (reader.usage, reader.done, reader.error) == (None, False, None)


@settings(deadline=None)
@given(event_runs())
def test_reading_again_changes_nothing_more(run):
    once = read(run, keep_usage=True)[1]

    assert read(once, keep_usage=True)[1] == once
