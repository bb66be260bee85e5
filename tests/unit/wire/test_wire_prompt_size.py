"""The size of a prompt before anybody has counted it: a likely one, and one that it cannot exceed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.wire.prompt_media import MAX_MEDIA, TOKENS_PER_MEDIUM, without_media
from lingpai.wire.prompt_size import (
    MOST_PER_MESSAGE,
    TEMPLATE_TOKENS,
    WALKED_BYTES,
    PromptSize,
    prompt_size,
    prompt_texts,
)

LONG = "long text " * 500
IMAGE = "data:image/png;base64," + "A" * 10_000


def size(value, *, ascii_only=False) -> PromptSize:
    return prompt_size(json.dumps(value, ensure_ascii=ascii_only).encode())


def chat(*contents):
    return {"model": "m", "messages": [{"role": "user", "content": content} for content in contents]}


def test_likely_size_is_the_estimate_of_the_texts_and_something_per_message():
    assert size(chat("hello world", "你好")).likely == 2 + 2 + 2 * 3


def test_escapes_do_not_matter_to_the_likely_size_and_only_raise_the_most():
    plain, escaped = size(chat("你好，世界")), size(chat("你好，世界"), ascii_only=True)

    assert plain.likely == escaped.likely
    assert plain.most < escaped.most


@given(st.text(max_size=200), st.booleans())
@settings(deadline=None)
def test_bytes_of_the_texts_never_exceed_the_most(text, ascii_only):
    """A byte-level tokenizer makes at most one token of a byte."""
    try:
        tokens = len(text.encode())
    except UnicodeEncodeError:
        return  # half a surrogate pair, which no JSON reader lets through

    assert tokens + MOST_PER_MESSAGE + TEMPLATE_TOKENS <= size(chat(text), ascii_only=ascii_only).most


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from(["messages", "prompt", "input", "tools", "x"]),
)
@settings(deadline=None)
def test_any_body_has_a_size_and_the_likely_one_is_not_over_the_most(value, field):
    measured = size({field: value}, ascii_only=True)

    assert 0 <= measured.likely <= measured.most


@pytest.mark.parametrize("body", [b"", b"[1]", b"--boundary\r\n\x00\xff", b'"x"'])
def test_body_that_is_no_object_has_no_text(body):
    assert prompt_size(body).likely == 0


def test_body_with_what_no_program_can_hold_is_judged_by_its_bytes():
    assert prompt_size(b'{"prompt": "hello world", "x": 1e999}').likely > 2


def test_picture_counts_a_flat_amount():
    parts = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": IMAGE}}]

    measured = size(chat(parts))

    assert measured.media == 1
    assert measured.likely == 3 + 3 + TOKENS_PER_MEDIUM
    assert measured.most < 1000 + TOKENS_PER_MEDIUM


def test_sound_counts_a_flat_amount():
    parts = [{"type": "input_audio", "input_audio": {"data": "A" * 5000, "format": "wav"}}]

    measured = size(chat(parts))

    assert measured.media == 1
    assert measured.most < 1000 + TOKENS_PER_MEDIUM


@pytest.mark.parametrize(
    "body",
    [
        chat(IMAGE),  # the text of a message, not a picture
        chat('{"url": "' + IMAGE + '"}'),
        {"prompt": [IMAGE]},
    ],
)
def test_text_that_only_looks_like_a_picture_stays_a_text(body):
    measured = size(body)

    assert measured.media == 0
    assert measured.most > 10_000


def test_media_are_emptied_and_all_else_stays():
    parts = [
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"image_url": {"url": "https://a.example/b.png"}},
        {"type": "text", "text": "y"},
    ]
    body = json.dumps(chat(parts)).replace("/png", "\\/png").encode()

    text, number, tokens = without_media(body)

    assert (number, tokens) == (3, 3 * TOKENS_PER_MEDIUM)
    parts[0]["image_url"]["url"] = parts[1]["input_audio"]["data"] = parts[2]["image_url"]["url"] = ""
    assert json.loads(text) == chat(parts)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "data:" + "long text " * 1000, "model": "m"},
        {"input": "data:text/plain;base64," + "long text " * 1000},
        {"prompt": ["input_audio", "data", "long text " * 1000]},
        chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "long text " * 1000}}]),
        chat([{"type": "text", "text": "x", "file": "long text " * 1000}]),
        chat([{"type": "input_audio", "input_audio": {"data": "long text " * 1000}}]),
        {**chat("x"), "image_url": {"url": IMAGE}, "chat_template": "long text " * 1000},
    ],
    ids=range(7),
)
def test_text_passed_off_as_a_medium_counts(body):
    assert size(body).likely >= 2000


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template": LONG},
        {"chat_template_kwargs": {"a": {"b": LONG}}},
        {"chat_template_kwargs": {LONG: 1}},
        {"prefix": LONG},
        {"guided_json": {"description": LONG}},
        {"unheard_of": [LONG]},
        {LONG: 1},
        {"user": LONG},
        {"messages": [{"role": "user", "content": "x", "tool_call_id": LONG}]},
        {"messages": [{"role": LONG, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": LONG}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": LONG}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {LONG: 1}}}]}]},
    ],
    ids=str,
)
def test_text_counts_wherever_it_stands(fields):
    """Templates and engines make prompts of fields that nobody here has heard of."""
    assert size({**chat("x"), **fields}).likely >= 1000


def test_picture_by_its_address_counts_like_any_other():
    parts = [{"type": "image_url", "image_url": {"url": f"https://a.example/{n}.png"}} for n in range(3)]

    measured = size(chat(parts))

    assert measured.media == 3
    assert measured.likely == 3 + 3 * TOKENS_PER_MEDIUM


def test_settings_are_no_prompt():
    assert (
        size({**chat("hi"), "user": "ada", "stop": ["END"], "metadata": {"a": "b"}}).likely
        == size(chat("hi")).likely
    )


def test_media_in_great_numbers_take_no_time_and_count_in_full():
    parts = [{"type": "image_url", "image_url": {"url": "https://a.example/"}}] * (MAX_MEDIA + 1)

    assert size(chat(parts)).likely >= (MAX_MEDIA + 1) * TOKENS_PER_MEDIUM


def test_data_url_is_a_medium_of_a_model_that_reads_no_text():
    body = json.dumps({"input": IMAGE}).encode()

    assert prompt_size(body, is_text=False).media == 1
    assert prompt_size(body).media == 0


def test_token_ids_count_one_each():
    assert size({"input": [1, 2, 3]}).likely == 3
    assert size({"prompt": [[1, 2], [3]]}).likely == 3


def test_tools_are_part_of_the_prompt():
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 400}}]

    assert size({**chat("hi"), "tools": tools}).likely > size(chat("hi")).likely + 100


def test_large_body_is_estimated_from_its_bytes():
    body = chat("hello world " * (WALKED_BYTES // 8))

    measured = size(body)

    assert measured.messages == 1
    assert measured.likely == pytest.approx(2 * (WALKED_BYTES // 8), rel=0.1)


def test_texts_of_a_prompt_are_its_contents():
    parts = [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": IMAGE}}]

    assert prompt_texts(json.dumps(chat("a", parts)).encode()) == ["a", "b"]
