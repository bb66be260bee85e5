"""What backends say a call has used: they lie in every way there is, and no lie gets into the sums."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.wire.usage import NONSENSE, Usage, answer_usage, is_credible, read_usage, tokens

MOST = 10**9


def usage_in(usage) -> tuple[int, int, int, int]:
    return tokens(answer_usage(json.dumps({"id": "x", "usage": usage}).encode()))


def test_usage_with_details_is_read():
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 40,
        "total_tokens": 70,
        "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }

    assert usage_in(usage) == (30, 40, 10, 20)


def test_details_may_come_alone_or_be_null():
    assert usage_in({"prompt_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}}) == (
        3,
        0,
        0,
        2,
    )
    assert usage_in({"prompt_tokens": 3, "prompt_tokens_details": None}) == (3, 0, 0, 0)
    assert usage_in({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}) == (3, 0, 0, 0)


def test_embeddings_have_no_completion_tokens():
    assert usage_in({"prompt_tokens": 5, "total_tokens": 5}) == (5, 0, 0, 0)


@pytest.mark.parametrize("usage", [None, {}])
def test_no_usage_counts_as_zeros(usage):
    assert usage_in(usage) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "usage",
    [
        "many",
        5,
        [],
        True,
        {"prompt_tokens": "5"},
        {"prompt_tokens": 5.5},
        {"prompt_tokens": {}},
        {"prompt_tokens": 5, "completion_tokens": "4"},
        {"prompt_tokens_details": 3},
        {"estimated": "yes"},
    ],
)
def test_usage_of_wrong_types_is_none_and_the_answer_is_still_good(usage):
    assert answer_usage(json.dumps({"usage": usage}).encode()) is NONSENSE
    assert read_usage(msgspec.Raw(json.dumps(usage).encode())) is NONSENSE
    assert not is_credible(NONSENSE)
    assert tokens(NONSENSE) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("count", "counted"), [(-1, 0), (-(10**30), 0), (MOST, MOST), (MOST + 1, MOST), (10**30, MOST), (None, 0)]
)
def test_counts_are_never_negative_and_never_absurd(count, counted):
    usage = {
        "prompt_tokens": count,
        "completion_tokens": count,
        "prompt_tokens_details": {"cached_tokens": count},
        "completion_tokens_details": {"reasoning_tokens": count},
    }

    assert usage_in(usage) == (counted,) * 4
    assert usage_in({"prompt_tokens": count, "completion_tokens": count}) == (counted, counted, 0, 0)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "estimated"]),
            inner,
        ),
    )
)  # fmt: skip
def test_whatever_is_in_usage_the_counts_are_sane(usage):
    assert all(0 <= count <= MOST for count in usage_in(usage))


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"<html>", b'"x"', b'{"usage": {"prompt_tokens": "x"}'])
def test_answer_that_is_no_object_is_told_from_one_with_odd_usage(body):
    with pytest.raises(msgspec.DecodeError):
        answer_usage(body)


@pytest.mark.parametrize(
    ("raw", "usage"), [(b"", None), (b"null", None), (b"{", NONSENSE), (b"[]", NONSENSE)]
)
def test_absent_usage_is_told_from_broken(raw, usage):
    assert read_usage(msgspec.Raw(raw)) is usage


def test_estimated_usage_says_so():
    assert answer_usage(b'{"usage": {"prompt_tokens": 1, "estimated": true}}').estimated
    assert not answer_usage(b'{"usage": {"prompt_tokens": 1}}').estimated


def test_nobody_asked_is_zero():
    assert tokens(None) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("prompt", "completion", "credible"),
    [
        (0, 0, True),
        (None, None, True),
        (5, None, True),
        (10**9, 1, True),
        (-1, 5, False),
        (5, -1, False),
        (10**9 + 1, 0, False),
    ],
)
def test_counts_that_cannot_be_are_not_credible(prompt, completion, credible):
    assert is_credible(Usage(prompt_tokens=prompt, completion_tokens=completion)) is credible
