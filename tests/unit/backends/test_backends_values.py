from dataclasses import dataclass

import numpy as np
import pytest

from lingpai.backends.engines.values import ResultError, encode, labels, vectors


@dataclass
class Box:
    x: int


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (np.array([[1, 2], [3, 4]]), b"[[1,2],[3,4]]"),
        (
            {"score": np.float32(0.5), "n": np.int64(3), "ok": np.bool_(True)},
            b'{"score":0.5,"n":3,"ok":true}',
        ),
        (Box(1), b'{"x":1}'),
        (
            {
                1,
            },
            b"[1]",
        ),
        (float("nan"), b"null"),
    ],
)
def test_what_authors_return_becomes_json(value, json):
    assert encode(value) == json


def nested():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [object(), {"a": print}, nested(), "\ud800"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ResultError, match="JSON cannot hold"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        [{"label": "a", "score": 0.1}, {"label": "b", "score": np.float64(0.9)}],
        ({"label": "a", "score": 0.1}, {"label": "b", "score": 0.9}),
        {"a": np.float32(0.1), "b": 0.9},
        {"sequence": "x", "labels": ["b", "a"], "scores": np.array([0.9, 0.1])},
        [[{"label": "b", "score": 0.9}, {"label": "a", "score": 0.1}]],
    ],
)
def test_labels_come_sorted_from_every_form(value):
    found = labels(value)

    assert [each["label"] for each in found] == ["b", "a"]
    assert [each["score"] for each in found] == pytest.approx([0.9, 0.1])


def test_one_label_is_a_list_of_one():
    assert labels({"label": "a", "score": 1}) == [{"label": "a", "score": 1}]


@pytest.mark.parametrize(
    "value",
    ["good", 3, [1], [{"label": "a"}], {"a": "high"}, {"labels": ["a"]}, [{"label": "a", "score": True}]],
)
def test_what_is_no_classification_is_refused(value):
    with pytest.raises(ResultError):
        labels(value)


def test_vectors_come_from_lists_and_arrays():
    assert vectors(np.ones((2, 2)), expected=2) == [[1.0, 1.0], [1.0, 1.0]]
    assert vectors([np.ones(2), [0.0, 1.0]], expected=2) == [[1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("value", [None, "ab", [1.0, 2.0], [["a"], ["b"]], [[], []], [[1.0]]])
def test_what_is_no_list_of_vectors_is_refused(value):
    with pytest.raises(ResultError):
        vectors(value, expected=2)
