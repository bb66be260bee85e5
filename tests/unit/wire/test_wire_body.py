"""A wrong body is answered with what is wrong, where, and what to do."""

import base64
import contextlib
import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.errors import LingpaiError
from lingpai.wire import openai
from lingpai.wire.body import MAX_BRACKETS, MAX_DEPTH, MAX_STRUCTURE, SMALL_BODY_BYTES, check_text, read_body

BRACKETS_AND_QUOTES = st.text(alphabet='[]{}"\\a:,é', max_size=300)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\é a', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


def refusal_of(body: bytes, decoder=openai.CHAT) -> LingpaiError:
    with pytest.raises(LingpaiError) as caught:
        read_body(body, decoder)
    return caught.value


def refusal_of_text(body: bytes) -> LingpaiError:
    with pytest.raises(LingpaiError) as caught:
        check_text(body)
    return caught.value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def depth_of(value) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def test_good_body_is_decoded():
    request = read_body(b'{"model":"m","messages":[{"role":"user"}],"stream":true}', openai.CHAT)

    assert (request.model, request.stream, len(request.messages)) == ("m", True, 1)


@pytest.mark.parametrize("body", [b"", b"  \r\n\t "])
def test_empty_body_says_so_and_shows_what_to_send(body):
    error = refusal_of(body)

    assert (error.code, error.status) == ("invalid_json", 400)
    assert "empty" in error.message
    assert '{"model"' in error.message


@pytest.mark.parametrize(
    "body",
    [b"{", b"{]}", b"hello", b"{'model': 'm'}", b'{"model": "m"} {}', b'{"model": "m",}', b"\x00", b"\xff"],
)
def test_text_that_is_not_json_is_invalid_json(body):
    error = refusal_of(body)

    assert error.code == "invalid_json"
    assert "not valid JSON" in error.message


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"null", b"true"])
def test_json_that_is_no_object_is_told_to_be_one(body):
    error = refusal_of(body)

    assert error.code == "invalid_request"
    assert "must be a JSON object" in error.message
    assert error.param is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": 5}', "model"),
        (b'{"stream": "yes"}', "stream"),
        (b'{"stream_options": []}', "stream_options"),
        (b'{"messages": {}}', "messages"),
        (b'{"messages": "hi"}', "messages"),
    ],
)
def test_wrong_type_names_the_field_in_message_and_param(body, param):
    error = refusal_of(body)

    assert (error.code, error.param) == ("invalid_request", param)
    assert error.message.startswith(f"`{param}`: expected ")


def test_wrong_type_deep_inside_names_the_whole_path():
    decoder = msgspec.json.Decoder(dict[str, list[dict[str, int]]])

    error = refusal_of(b'{"a": [{"b": 1}, {"b": "x"}]}', decoder)

    assert error.param is not None
    assert "[1]" in error.param


def test_nesting_beyond_what_the_decoder_can_follow_is_refused_not_raised():
    """The decoder recurses too; when it gives up, the caller hears of nesting, not of a fault of ours."""
    error = refusal_of(b'{"x": ' + nested(100_000) + b"}")

    assert error.code == "invalid_json"
    assert "nested" in error.message


def test_deepest_allowed_nesting_is_accepted():
    check_text(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH + 1),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b'{"a":[' * 33 + b"]}" * 33,
        b"[" * MAX_BRACKETS,
    ],
)
def test_one_level_more_is_refused(body):
    error = refusal_of_text(body)

    assert error.code == "invalid_json"
    assert str(MAX_DEPTH) in error.message


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"content": "[" * 500}).encode(),
        json.dumps({"content": '"' + "{" * 500}).encode(),
        json.dumps({"content": "\\" * 7 + '"' + "[" * 500 + "\\"}).encode(),
        json.dumps([[] for _ in range(500)]).encode(),
    ],
)
def test_brackets_inside_strings_and_side_by_side_are_no_nesting(body):
    check_text(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"[]," * (MAX_BRACKETS - 1) + b"1]}",  # with the two around them, one too many
        b'{"messages":[' + b"1," * (MAX_STRUCTURE - 1) + b"1]}",
        b'{"a":[' + b"{}," * (MAX_BRACKETS - 1) + b"1]}",
        b"[" * 10_000_000,
    ],
)
def test_body_of_nothing_but_structure_is_refused_before_it_is_decoded(body):
    """Every value in it would become an object, and all callers would wait for that."""
    error = refusal_of_text(body)

    assert (error.code, error.status) == ("invalid_json", 400)
    assert str(MAX_STRUCTURE) in error.message
    assert str(MAX_BRACKETS) in error.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"[]," * (MAX_BRACKETS - 2) + b"1]}",
        b'{"messages":[' + b"1," * (MAX_STRUCTURE - 2) + b"1]}",
    ],
)
def test_body_with_the_most_structure_is_accepted(body):
    check_text(body)


def test_structure_of_a_small_body_is_not_counted(monkeypatch):
    monkeypatch.setattr("lingpai.wire.body.MAX_STRUCTURE", 10)
    body = b"[" + b"1," * 20 + b'"%b"]'
    around = len(body % b"")

    check_text(body % (b"a" * (SMALL_BODY_BYTES - around)))
    refusal_of_text(body % (b"a" * (SMALL_BODY_BYTES - around + 1)))


def test_image_of_10_mb_in_base64_is_accepted():
    image = base64.b64encode(bytes(range(256)) * 40_000).decode()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    history = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}] * MAX_DEPTH
    body = json.dumps({"model": "m", "messages": [*history, {"role": "user", "content": [url]}]}).encode()

    check_text(body)

    assert len(read_body(body, openai.CHAT).messages) == MAX_DEPTH + 1


def test_300_000_token_ids_to_embed_are_accepted():
    body = json.dumps({"model": "m", "input": list(range(300_000))}).encode()

    check_text(body)

    assert read_body(body, openai.EMBEDDING).model == "m"


@settings(deadline=None)
@given(JSON_VALUES, st.integers(0, 70))
def test_depth_counts_exactly_what_is_nested(value, around):
    """Whatever the strings hold: refused if and only if the value itself is nested too deeply."""
    for _ in range(around):
        value = [value, "]" * MAX_DEPTH]
    body = json.dumps(value, ensure_ascii=False).encode()

    if depth_of(value) > MAX_DEPTH:
        refusal_of_text(body)
    else:
        check_text(body)


@settings(deadline=None)
@given(BRACKETS_AND_QUOTES)
def test_any_text_is_accepted_or_refused_as_the_callers_mistake(text):
    """Nothing but a LingpaiError comes out."""
    body = (text + "[" * (MAX_DEPTH + 1)).encode()

    with contextlib.suppress(LingpaiError):
        check_text(body)
        read_body(body, openai.CHAT)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("tail", ["", "\\"])
def test_string_of_escaped_quotes_without_an_end_is_looked_at_once(tail):
    """A pattern that starts again at every quote would keep the whole server busy for minutes with one request."""
    body = b"[]" * (MAX_DEPTH + 1) + b'"' + b'\\"' * 100_000 + tail.encode()

    check_text(body)


def test_long_string_takes_no_memory_beside_itself():
    """An image in base64 is one string of many megabytes; looking for brackets around it must not cost a gigabyte."""
    code = (
        "import resource; from lingpai.wire.body import check_text\n"
        "body = b'[{}' + b',{}' * 70 + b',\"' + b'A' * 8_000_000 + b'\"]'\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "check_text(body)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )

    grown_kib = int(run_python(code))

    assert grown_kib < 64 * 1024


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b"\xff", b'{"a": "\xed\xa0\x80"}', b'{"a": "\xc3\x28"}'])
def test_bytes_that_are_not_utf_8_are_refused_with_their_place(body):
    error = refusal_of_text(body)

    assert error.code == "invalid_json"
    place = next(index for index, byte in enumerate(body) if byte > 127)
    assert f"byte {place}" in error.message


@settings(deadline=None)
@given(st.text())
def test_any_utf_8_passes(text):
    check_text(text.encode("utf-8", "ignore").replace(b"[", b"").replace(b"{", b""))
