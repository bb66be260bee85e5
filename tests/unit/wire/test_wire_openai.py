"""What the gateway reads of OpenAI's bodies, and that rewriting touches nothing else."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.errors import LingpaiError
from lingpai.wire import openai

FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

ODD_VALUES = st.sampled_from([
    "1e5", "1.0", "0.10", "-0", "12345678901234567890123", '"\\u4f60"', '"\\/"', "[ 1,2 ]", '{"b" : 1, "b":2}', "null", "true",
])  # fmt: skip
NAMES = st.text(alphabet="abMmOoDdEeLl", min_size=1, max_size=6)


def raw_object(fields: list[tuple[str, str]]) -> bytes:
    return ("{ " + " ,\n".join(f"{json.dumps(name)} : {value}" for name, value in fields) + " }").encode()


def refusal_of(decoder, fields) -> LingpaiError:
    with pytest.raises(LingpaiError) as caught:
        decoder.decode(json.dumps(fields)).check()
    return caught.value


# -- rewrite


def test_rewrite_sets_a_field_and_keeps_the_bytes_of_the_others():
    body = b'{"model": "a", "temperature": 0.10, "seed": 12345678901234567890123, "x": "\\u4f60\\/"}'

    fields = FIELDS.decode(openai.rewrite(body, {"model": "b"}))

    assert bytes(fields["model"]) == b'"b"'
    assert bytes(fields["temperature"]) == b"0.10"
    assert bytes(fields["seed"]) == b"12345678901234567890123"
    assert bytes(fields["x"]) == b'"\\u4f60\\/"'


@settings(deadline=None)
@given(st.dictionaries(NAMES, ODD_VALUES, max_size=6))
def test_rewrite_keeps_every_other_value_as_it_was_written(fields):
    body = raw_object(list(fields.items()))

    rewritten = FIELDS.decode(openai.rewrite(body, {"model": "new"}))

    expected = {name: value for name, value in fields.items() if name.casefold() != "model"}
    assert {name: bytes(value).decode() for name, value in rewritten.items()} == {
        **expected,
        "model": '"new"',
    }


def test_rewrite_drops_names_that_differ_only_in_case():
    """Go's decoder matches names in any case: a second spelling would choose another model behind our back."""
    body = b'{"Model": "evil", "MODEL": "evil", "model": "a", "models": 1}'

    rewritten = openai.rewrite(body, {"model": "b"})

    assert json.loads(rewritten) == {"model": "b", "models": 1}


def test_rewrite_collapses_repeated_names_to_the_last():
    body = b'{"model": "a", "n": 1, "model": "c", "n": 2}'

    rewritten = openai.rewrite(body, {"model": "b"})

    assert json.loads(rewritten, object_pairs_hook=list) == [("n", 2), ("model", "b")]


def test_rewrite_sees_through_escapes_in_names():
    assert json.loads(openai.rewrite(b'{"m\\u006fdel": "evil"}', {"model": "b"})) == {"model": "b"}


def test_rewrite_removes_a_field_whose_change_is_none():
    assert json.loads(openai.rewrite(b'{"stream_options": {}, "a": 1}', {"stream_options": None})) == {"a": 1}


def test_rewrite_adds_objects():
    rewritten = openai.rewrite(b'{"stream":true}', {"stream_options": {"include_usage": True}})

    assert json.loads(rewritten) == {"stream": True, "stream_options": {"include_usage": True}}


# -- clear_body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a"}',
        b'{ "model" : "a",\n"n":1, "Odd": 1.50 }',
        b'{"model":"a","messages":[{"content":"say \\"model\\""}]}',
        b'{"model":"a","extra":{"Model":"b"}}',
        b'{"messages":[]}',
    ],
)
def test_body_in_which_nothing_is_said_twice_keeps_its_bytes(body):
    assert openai.clear_body(body) is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"\\u006Dodel":"a","model":"b"}',
        b'{ "model" : "a" , "model" : "b" }',
    ],
)
def test_repeated_names_collapse_to_the_last(body):
    assert openai.clear_body(body) == b'{"model":"b"}'


@pytest.mark.parametrize(
    "name",
    ["Model", "MODEL", "Stream", "\u017ftream", "N", "Best_Of", "Messages", "Stream_Options", "Max_Tokens", "max_to\u212aens",
     "N_predict", "Prompt", "Input"],
)  # fmt: skip
def test_name_in_another_case_is_refused_and_named(name):
    """Go's decoder matches names in any case, and takes the last."""
    with pytest.raises(LingpaiError) as caught:
        openai.clear_body(json.dumps({"model": "a", name: 1}).encode())

    assert caught.value.param == name
    assert caught.value.code == "invalid_request"


def test_body_of_very_many_names_is_refused():
    fields = {f"k{number}": 1 for number in range(openai.MAX_FIELDS + 1)}

    with pytest.raises(LingpaiError, match="1000 fields"):
        openai.clear_body(json.dumps(fields).encode())


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES | st.just("model"), st.sampled_from(['"a"', '"b"'])), min_size=1, max_size=5),
)
def test_cleared_body_has_one_spelling_of_model_for_a_reader_that_ignores_case(fields):
    try:
        cleared = openai.clear_body(raw_object(fields))
    except LingpaiError:
        return

    pairs = json.loads(cleared, object_pairs_hook=list)
    assert sum(name.casefold() == "model" for name, _ in pairs) <= 1


def test_usage_option_in_another_case_is_refused():
    request = openai.CHAT.decode(json.dumps({**CHAT_BODY, "stream_options": {"Include_Usage": False}}))

    with pytest.raises(LingpaiError):
        request.check()


# -- requests


def test_unknown_fields_are_not_judged():
    request = openai.CHAT.decode(json.dumps({**CHAT_BODY, "top_k": "odd", "metadata": [1]}))

    request.check()

    assert request.model == "m"


@pytest.mark.parametrize("messages", [None, []])
def test_chat_without_messages_is_refused_with_an_example(messages):
    error = refusal_of(openai.CHAT, {"model": "m", "messages": messages})

    assert error.param == "messages"
    assert '"role": "user"' in error.message
    assert ("missing" in error.message) == (messages is None)


def test_chat_messages_are_not_judged_one_by_one():
    openai.CHAT.decode('{"messages": [1, null, {"role": "developer", "content": [{}]}]}').check()


@pytest.mark.parametrize("body", ['{"model":"m"}', '{"prompt":null}'])
def test_completion_without_prompt_is_refused(body):
    with pytest.raises(LingpaiError) as caught:
        openai.COMPLETION.decode(body).check()

    assert caught.value.param == "prompt"


@pytest.mark.parametrize("prompt", ['""', "[]", '"a"', '["a","b"]', "[1,2]"])
def test_completion_accepts_every_form_of_prompt(prompt):
    openai.COMPLETION.decode(f'{{"prompt":{prompt}}}').check()


@pytest.mark.parametrize("value", [None, "", []])
def test_embedding_of_nothing_is_refused(value):
    assert refusal_of(openai.EMBEDDING, {"input": value}).param == "input"


def test_embedding_without_input_is_refused():
    assert refusal_of(openai.EMBEDDING, {"model": "m"}).param == "input"


@pytest.mark.parametrize("value", ["a", ["a", "b"], [1, 2], [[1], [2]]])
def test_embedding_accepts_texts_and_tokens(value):
    openai.EMBEDDING.decode(json.dumps({"input": value, "encoding_format": "base64"})).check()


def test_embedding_refuses_an_unknown_encoding_and_a_stream():
    assert refusal_of(openai.EMBEDDING, {"input": "a", "encoding_format": "hex"}).param == "encoding_format"
    assert refusal_of(openai.EMBEDDING, {"input": "a", "stream": True}).param == "stream"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": None}, False),
        ({"include_usage": False}, False),
        ({"include_usage": True}, True),
        ({"include_obfuscation": False}, False),
    ],
)
def test_usage_is_wanted_only_when_it_is_asked_for(options, expected):
    request = openai.CHAT.decode(json.dumps({**CHAT_BODY, "stream_options": options}))

    request.check()

    assert request.wants_usage is expected


@pytest.mark.parametrize("value", [1, "true", [], {}])
@pytest.mark.parametrize("decoder", [openai.CHAT, openai.COMPLETION])
def test_include_usage_of_another_type_is_refused_by_name(decoder, value):
    fields = {**CHAT_BODY, "prompt": "a", "stream_options": {"include_usage": value}}

    error = refusal_of(decoder, fields)

    assert error.param == "stream_options.include_usage"
