"""What a model said, found in its answer for counting."""

import json

import pytest

from lingpai.wire.answer_texts import WALKED_BYTES, answer_texts, estimate_answer, stream_texts


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "hello"}}]}, ["hello"]),
        ({"choices": [{"text": "a"}, {"text": "b"}]}, ["a", "b"]),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}}]}, ["f", "{}"]),
        ({"choices": [{"message": {"reasoning_content": "hm", "content": "a"}}]}, ["hm", "a"]),
        ({"output": {"text": "hello"}}, ["hello"]),
        ({"prediction": ["a", {"b": "c"}]}, ["a", "c"]),
        ({"prediction": "data:image/png;base64,AAAA"}, []),
        ({"choices": None}, []),
        ([], []),
    ],
)  # fmt: skip
def test_texts_are_found_in_every_shape(answer, texts):
    assert answer_texts(json.dumps({"id": "x", "model": "m", **answer} if isinstance(answer, dict) else answer).encode()) == texts  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff"])
def test_what_is_no_json_has_no_texts(body):
    assert answer_texts(body) == []
    assert estimate_answer(body) == 0


def test_text_of_a_stream_is_one_text():
    """A word may go over several events."""
    events = [
        b'data: {"choices":[{"delta":{"content":"inter"}}]}\n\n: ping\n\n',
        b'data: {"choices":[{"delta":{"content":"national"}}]}\n\ndata: [DONE]\n\n',
    ]

    assert stream_texts(events) == ["international"]


def test_large_answer_is_estimated_from_its_length():
    assert estimate_answer(b" " * (WALKED_BYTES + 4)) == (WALKED_BYTES + 4) // 4
