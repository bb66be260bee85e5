"""Vectors in the form the caller asked for, whatever form the backend chose."""

import base64
import json
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.wire.embeddings import base64_to_floats, floats_to_base64, match_encoding

VECTORS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)


def answer(*vectors, **fields) -> bytes:
    items = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    return json.dumps({"object": "list", "data": items, **fields}).encode()


def vectors_of(body: bytes) -> list:
    return [item["embedding"] for item in json.loads(body)["data"]]


def test_base64_is_little_endian_float32():
    assert base64.b64decode(floats_to_base64([1.0, -2.5])) == b"\x00\x00\x80\x3f\x00\x00\x20\xc0"


@settings(deadline=None)
@given(VECTORS)
def test_base64_and_back_is_the_same_vector(vector):
    assert base64_to_floats(floats_to_base64(vector)) == vector


@pytest.mark.parametrize("text", ["AAA=", "AAAAAAA=", "not base64!", "AA\nAA", "é"])
def test_text_that_is_no_vector_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"base64|float32|padding|ASCII|characters"):
        base64_to_floats(text)


def test_floats_become_base64_when_asked():
    body = match_encoding(answer([1.0, 0.5], [2.0, 0.0], model="m", usage={"prompt_tokens": 2}), "base64")

    assert vectors_of(body) == [floats_to_base64([1.0, 0.5]), floats_to_base64([2.0, 0.0])]
    assert json.loads(body)["usage"] == {"prompt_tokens": 2}
    assert [item["index"] for item in json.loads(body)["data"]] == [0, 1]


@pytest.mark.parametrize("encoding", [None, "float"])
def test_base64_becomes_floats_when_asked_or_when_nothing_was_asked(encoding):
    body = match_encoding(answer(floats_to_base64([1.0, 0.5]), floats_to_base64([])), encoding)

    assert vectors_of(body) == [[1.0, 0.5], []]


@pytest.mark.parametrize(
    ("vector", "encoding"),
    [([1.0], None), ([1.0], "float"), ([1], "float"), (floats_to_base64([1.0]), "base64")],
)
def test_answer_in_the_right_form_is_the_very_object_that_came(vector, encoding):
    body = answer(vector)

    assert match_encoding(body, encoding) is body


def test_answer_that_mixes_both_forms_is_made_one():
    body = answer([1.0], floats_to_base64([2.0]))

    assert vectors_of(match_encoding(body, "float")) == [[1.0], [2.0]]
    assert vectors_of(match_encoding(body, "base64")) == [floats_to_base64([1.0]), floats_to_base64([2.0])]


def test_whole_numbers_are_numbers_too():
    assert base64_to_floats(vectors_of(match_encoding(answer([1, 0, -3]), "base64"))[0]) == [1.0, 0.0, -3.0]


@settings(deadline=None)
@given(st.lists(VECTORS, min_size=1, max_size=3))
def test_any_vectors_survive_both_directions(vectors):
    there = match_encoding(answer(*vectors), "base64")

    assert vectors_of(match_encoding(there, "float")) == vectors


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"data": null}',
        b'{"data": [1]}',
        b'{"data": [{}]}',
        b"not json",
        b'{"data": "x"}',
    ],
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_what_is_no_embeddings_answer_is_a_decode_error(body, encoding):
    with pytest.raises(msgspec.DecodeError):
        match_encoding(body, encoding)


@pytest.mark.parametrize(
    "vector", [[None, 1.0], ["x"], [[1.0]], [1e39], [10**400]], ids=lambda vector: str(vector)[:10]
)
def test_vector_that_holds_no_float32_is_a_value_error(vector):
    """llama.cpp writes NaN as null. Any other kind of exception would get past the gateway's `except`."""
    with pytest.raises(ValueError, match="float"):
        match_encoding(answer(vector), "base64")


def test_bad_base64_from_a_backend_is_a_value_error():
    with pytest.raises(ValueError, match=r"base64|padding"):
        match_encoding(answer("???"), "float")


def test_order_of_bytes_does_not_depend_on_the_machine():
    assert struct.unpack("<f", base64.b64decode(floats_to_base64([3.5])))[0] == 3.5
