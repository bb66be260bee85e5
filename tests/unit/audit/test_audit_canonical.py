"""One spelling for each record."""

import pytest

from lingpai.audit.canonical import canonical, plain, time_in, time_text


def test_fields_are_sorted_and_nothing_is_escaped_without_need():
    """The example of RFC 8785, section 3.2.2, without its floating-point numbers."""
    value = {
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }

    assert canonical(value) == r'{"literals":[null,true,false],"string":"€$\u000f\nA' + r"'B\"\\\\\"/" + '"}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1),
        (0.1, "0.1"),
        (float("inf"), "inf"),
        (True, True),
        ((1, "a"), [1, "a"]),
        ({"b", "a"}, ["a", "b"]),
        ({1: 2.5}, {"1": "2.5"}),
        ("\ud800", "?"),
        (None, None),
    ],
)
def test_values_become_plain_without_floats(value, expected):
    assert plain(value) == expected


def test_times_are_to_the_millisecond_in_utc():
    assert time_text(1_795_000_000.1234) == "2026-11-18T11:06:40.123Z"
    assert time_in("2026-11-18T11:06:40.123Z") == pytest.approx(1_795_000_000.123)


def test_a_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="ends with Z"):
        time_in("2026-11-18T11:06:40+00:00")
