"""Structured fields, RFC 9651: what is read, what is refused, and that writing and reading agree."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.wire.structured_field_parser import parse_dictionary, parse_item, parse_list
from lingpai.wire.structured_fields import (
    Date,
    DisplayString,
    InnerList,
    Item,
    StructuredFieldError,
    Token,
    serialize_bare_item,
    serialize_dictionary,
    serialize_list,
    serialize_member,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-999999999999999", -999999999999999),
        ("4.5", Decimal("4.5")),
        ("-0.125", Decimal("-0.125")),
        ('"hello \\"you\\" \\\\"', 'hello "you" \\'),
        ("foo123/456", Token("foo123/456")),
        ("*star", Token("*star")),
        (":cHJldGVuZA==:", b"pretend"),
        ("::", b""),
        ("?1", True),
        ("?0", False),
        ("@1659578233", Date(1659578233)),
        ('%"This is f%c3%bcr you"', DisplayString("This is für you")),
    ],
)
def test_rfc9651_s3_3_items_are_read_and_written(text, value):
    item = parse_item(text)

    assert item.value == value
    assert type(item.value) is type(value)
    assert serialize_member(item) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "1234567890123456", "1.", "1.2345", "1234567890123.1", "--1", "1 2", '"open', '"ü"', '"tab\t"', '"\\n"',
        ":abc", ":a===:", ":YQ:", ":YR==:", ":Y Q==:", "?2", "?", "@1.5", "@", '%"%zz"', '%"%ff"', '%"%C3"', "(1)",
        "föö", "1;A=1", "1;=2", "1,",
    ],
)  # fmt: skip
def test_rfc9651_s4_2_malformed_items_are_refused(text):
    with pytest.raises(StructuredFieldError):
        parse_item(text)


@pytest.mark.parametrize(
    "text", ["a=1,", ",a=1", "a=1 b=2", "a=(1 2", "a=(1,2)", "A=1", 'a=("x""y")', "a==1", "a=1;;b", "a=()x"]
)
def test_rfc9651_s4_2_2_malformed_dictionaries_are_refused(text):
    with pytest.raises(StructuredFieldError):
        parse_dictionary(text)


def test_a_dictionary_keeps_its_order_and_its_parameters():
    text = 'b=?0, a, c=("x";sf "y" 3);q=1;r, d;p=tok'

    members = parse_dictionary(text)

    assert list(members) == ["b", "a", "c", "d"]
    assert members["c"] == InnerList((Item("x", {"sf": True}), Item("y"), Item(3)), {"q": 1, "r": True})
    assert serialize_dictionary(members) == text


def test_white_space_around_commas_is_optional_and_not_kept():
    assert serialize_dictionary(parse_dictionary("  a=1 \t,\tb=2  ")) == "a=1, b=2"


def test_rfc9651_s4_2_2_of_a_repeated_key_the_last_value_counts():
    assert parse_dictionary("a=1, b=2, a=3") == {"a": Item(3), "b": Item(2)}


@pytest.mark.parametrize("text", ["a=1, a=1", "a=(1);x;x=2", "a=(1;x;x)"])
def test_a_repeated_key_is_refused_where_keys_must_be_unique(text):
    with pytest.raises(StructuredFieldError, match="twice"):
        parse_dictionary(text, unique_keys=True)


def test_a_list_of_items_and_inner_lists():
    text = 'sugar, ("tea" "rum");hot, 3'

    assert serialize_list(parse_list(text)) == text
    assert parse_list("") == ()


@pytest.mark.parametrize(
    "value", [10**15, -(10**15), Decimal(10**12), "ü", "\x7f", "a\nb", Token("a b"), Token("")]
)
def test_rfc9651_s4_1_what_cannot_be_written_is_refused(value):
    with pytest.raises(StructuredFieldError):
        serialize_bare_item(value)


def test_a_parameter_must_have_a_key():
    with pytest.raises(StructuredFieldError):
        serialize_member(Item(1, {"Upper": 1}))


_bare_items = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=3),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
    st.binary(),
    st.integers(-(10**15) + 1, 10**15 - 1).map(Date),
    st.text(st.characters(exclude_categories=["Cs"])).map(DisplayString),
    st.from_regex(r"\A[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*\Z").map(Token),
)
_keys = st.from_regex(r"\A[a-z*][a-z0-9_.*-]*\Z")
_items = st.builds(Item, _bare_items, st.dictionaries(_keys, _bare_items, max_size=3))
_members = st.one_of(_items, st.builds(InnerList, st.lists(_items, max_size=3).map(tuple)))


@given(st.dictionaries(_keys, _members, max_size=4))
def test_what_is_written_is_read_again(members):
    assert parse_dictionary(serialize_dictionary(members), unique_keys=True) == members


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        members = parse_dictionary(text)
    except StructuredFieldError:
        return

    assert parse_dictionary(serialize_dictionary(members)) == members
