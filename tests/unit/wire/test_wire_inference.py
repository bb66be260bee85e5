"""The plain calls put into OpenAI's shapes and back."""

import json

import pytest

from lingpai.errors import LingpaiError
from lingpai.wire import inference, tasks
from lingpai.wire.openai import LENGTH_NAMES

CHAT_ANSWER = {"choices": [{"message": {"content": "hi"}}, {"message": {"content": None}}]}


def refusal_of(decoder, fields) -> LingpaiError:
    with pytest.raises(LingpaiError) as caught:
        decoder.decode(json.dumps(fields)).check()
    return caught.value


# -- reading


@pytest.mark.parametrize(
    ("decoder", "missing"),
    [(inference.PREDICT, "input_data"), (inference.INFERENCE, "input"), (inference.GENERATE, "prompt")],
)
def test_missing_argument_is_named_with_an_example(decoder, missing):
    error = refusal_of(decoder, {"model": "m"})

    assert (error.code, error.param) == ("invalid_request", missing)
    assert f'"{missing}"' in error.message


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False])
def test_any_json_is_an_argument(value):
    """Also null: what it means is for the function to say."""
    inference.PREDICT.decode(json.dumps({"input_data": value})).check()
    inference.INFERENCE.decode(json.dumps({"input": value})).check()


@pytest.mark.parametrize(
    ("decoder", "fields"), [(inference.INFERENCE, {"input": "a"}), (inference.GENERATE, {"prompt": "a"})]
)
def test_streams_are_refused_with_the_place_that_has_them(decoder, fields):
    error = refusal_of(decoder, {**fields, "stream": True})

    assert error.param == "stream"
    assert "/v1/chat/completions" in error.message
    decoder.decode(json.dumps({**fields, "stream": False})).check()


@pytest.mark.parametrize("prompt", ["", "a", ["a", "b"], []])
def test_generate_takes_one_prompt_or_several(prompt):
    inference.GENERATE.decode(json.dumps({"prompt": prompt})).check()


# -- parameters


@pytest.mark.parametrize("name", LENGTH_NAMES)
def test_every_name_for_the_length_becomes_max_tokens(name):
    assert inference.generation_parameters({name: 5}) == {"max_tokens": 5}


def test_of_several_lengths_the_most_telling_one_counts():
    fields = {"max_length": 1, "max_new_tokens": 2, "max_completion_tokens": 3}

    assert inference.generation_parameters(fields) == {"max_tokens": 3}
    assert inference.generation_parameters({**fields, "max_completion_tokens": None}) == {"max_tokens": 2}


def test_parameters_pass_as_they_are():
    assert inference.generation_parameters({"temperature": 0.5, "odd": [1]}) == {
        "temperature": 0.5,
        "odd": [1],
    }


@pytest.mark.parametrize(
    "name",
    ["model", "Model", "stream", "Stream", "messages", "MESSAGES", "prompt", "input", "N", "Max_Tokens"],
)
def test_what_is_no_parameter_is_refused_and_named(name):
    """Beside `model` it would be taken for the model, or for the prompt."""
    with pytest.raises(LingpaiError) as caught:
        inference.generation_parameters({name: "x"})

    assert caught.value.param == name


def test_no_parameter_replaces_what_is_called_with_what():
    _, body = inference.openai_request("chat", "m", "hi", {"model": "evil", "messages": [], "top_p": 1})

    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "top_p": 1}


# -- requests to OpenAI's routes


def test_chat_model_gets_messages():
    path, body = inference.openai_request(tasks.CHAT, "m", "hi", {"max_tokens": 5})

    assert path == b"/chat/completions"
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def test_completion_model_gets_a_prompt():
    assert inference.openai_request(tasks.COMPLETION, "m", ["a"], {}) == (
        b"/completions",
        {"model": "m", "prompt": ["a"]},
    )


def test_embedding_model_is_asked_for_floats_unless_told_otherwise():
    path, body = inference.openai_request(tasks.EMBEDDING, "m", "a", {})

    assert (path, body["input"], body["encoding_format"]) == (b"/embeddings", "a", "float")


def test_other_tasks_have_no_such_call():
    with pytest.raises(LingpaiError) as caught:
        inference.openai_request(tasks.GENERIC, "m", "a", {})

    assert caught.value.code == "unsupported_task"


@pytest.mark.parametrize(
    ("payload", "messages"),
    [
        ("hi", [{"role": "user", "content": "hi"}]),
        ([{"role": "system"}], [{"role": "system"}]),
        ({"messages": [{"role": "user"}], "other": 1}, [{"role": "user"}]),
    ],
)
def test_messages_are_found_in_what_callers_send(payload, messages):
    assert inference.as_messages(payload) == messages


@pytest.mark.parametrize(
    "payload", [None, 5, [], ["hi"], {"text": "hi"}, {"messages": "hi"}, [{"role": "user"}, "hi"]]
)
def test_payload_that_is_no_conversation_is_refused_with_an_example(payload):
    with pytest.raises(LingpaiError) as caught:
        inference.as_messages(payload)

    assert (caught.value.code, caught.value.param) == ("invalid_request", "input")
    assert '"role": "user"' in caught.value.message


# -- answers


def test_texts_of_a_chat_answer_are_its_contents_and_null_is_empty():
    assert inference.answer_texts(tasks.CHAT, CHAT_ANSWER) == ["hi", ""]
    assert inference.answer_output(tasks.CHAT, CHAT_ANSWER) == {"text": "hi"}


def test_texts_of_a_completion_answer():
    assert inference.answer_texts(tasks.COMPLETION, {"choices": [{"text": "a"}, {"text": "b"}]}) == ["a", "b"]


def test_vectors_come_in_the_order_of_their_index():
    answer = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}

    assert inference.answer_output(tasks.EMBEDDING, answer) == [[1.0], [2.0]]


def test_vectors_without_index_keep_their_order():
    assert inference.answer_output(tasks.EMBEDDING, {"data": [{"embedding": [2]}, {"embedding": [1]}]}) == [
        [2],
        [1],
    ]


@pytest.mark.parametrize("task", [tasks.CHAT, tasks.COMPLETION, tasks.EMBEDDING])
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": [], "data": None},
        {"choices": None, "data": [{}]},
        {"choices": [{}], "data": ["x"]},
        {"choices": ["x"], "data": [None]},
        {
            "choices": [{"message": None}],
            "data": [{"embedding": [1], "index": None}, {"embedding": [1], "index": 1}],
        },
        {"choices": [{"message": {"content": 5}, "text": 5}], "data": [{"embedding": "AAAA"}]},
        {"choices": [{"message": {"content": []}, "text": None}], "data": [{"embedding": None}]},
        [],
        "x",
        None,
        5,
        {"choices": [{"message": "x"}], "data": 5},
        {"choices": 5, "data": {"embedding": 1}},
    ],
)
def test_answer_of_another_shape_raises_what_the_gateway_catches(task, answer):
    with pytest.raises((KeyError, IndexError, TypeError)):
        inference.answer_output(task, answer)
