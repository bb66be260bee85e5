"""Every piece of a streamed tool call gets the index of its call."""

import pytest

from lingpai.wire.tool_calls import ToolCalls


def indexes(*chunks: list) -> list[list[int]]:
    """The indexes that the entries of each chunk of one choice get."""
    calls = ToolCalls()
    for entries in chunks:
        calls.repair(entries)
    return [[entry["index"] for entry in entries] for entries in chunks]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        # one call after the other
        ([[{"id": "a"}], [{"id": "b"}]], [[0], [1]]),
        ([[{"id": "a"}], [{}], [{}], [{"id": "b"}], [{}]], [[0], [0], [0], [1], [1]]),
        # null, empty and wrong ids are none
        ([[{"id": "a"}], [{"id": None}], [{"id": ""}], [{"id": 5}]], [[0], [0], [0], [0]]),
        # interleaved, told apart by the repeated id
        ([[{"id": "a"}], [{"id": "b"}], [{"id": "a"}], [{}], [{"id": "b"}]], [[0], [1], [0], [0], [1]]),
        # several in one chunk
        ([[{"id": "a"}, {"id": "b"}], [{"id": "c"}]], [[0, 1], [2]]),
        ([[{}, {}]], [[0, 1]]),
        ([[{"id": "a"}, {"id": "b"}], [{}, {}], [{}]], [[0, 1], [0, 1], [1]]),
        ([[{"id": "a"}], [{}, {}]], [[0], [0, 1]]),
        ([[{}]], [[0]]),
        # an index from the backend stays, and the next call comes after it
        ([[{"id": "a", "index": 5}], [{}], [{"id": "b"}]], [[5], [5], [6]]),
        ([[{"index": 1}], [{"index": 0}], [{}], [{"id": "a"}]], [[1], [0], [0], [2]]),
        ([[{"id": "a", "index": 1}], [{"id": "b", "index": 0}], [{"id": "a"}]], [[1], [0], [1]]),
        ([[{"index": 0}, {"index": 1}], [{"index": 0}, {"index": 1}]], [[0, 1], [0, 1]]),
        # what is not a number is no index
        ([[{"id": "a", "index": None}], [{"id": "b", "index": "0"}], [{"id": "c", "index": True}]], [[0], [1], [2]]),
    ],
)  # fmt: skip
def test_pieces_get_the_index_of_their_call(chunks, expected):
    assert indexes(*chunks) == expected


def test_entries_with_an_id_get_a_type_and_keep_the_one_they_have():
    entries = [{"id": "a"}, {"id": "b", "type": None}, {"id": "c", "type": "custom"}, {"id": None}, {}]

    ToolCalls().repair(entries)

    assert [entry.get("type") for entry in entries] == ["function", "function", "custom", None, None]


def test_what_is_no_tool_call_is_left_alone():
    entries = [None, 1, {"id": "a"}, "x", {"id": "b"}]

    ToolCalls().repair(entries)

    assert entries[::2] == [None, {"id": "a", "index": 0, "type": "function"}, entries[4]]
    assert (entries[4]["index"], entries[1], entries[3]) == (1, 1, "x")
